"""What the site has besides the files of docs/. mkdocs calls the functions `on_...` while it builds; see mkdocs.yml.

- Pages of the repository, such as README.md, which is the first one. A link to a file that is no page leads to a copy of it.
- The reference: the public names, from their docstrings, and the commands, from their help.
- Pictures of `lockbeat web`, in the place of `<!-- picture NAME: WORDS -->`, from the folder $LOCKBEAT_SHOTS, where the browser
  tests leave them. They are kept nowhere else, so they show what that checkout shows. Without the folder a page has none.
- llms.txt: each page and what its first paragraph says. llms-full.txt: the text of all but the reference.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
log = logging.getLogger("mkdocs.hooks.site")
SHOTS = os.environ.get("LOCKBEAT_SHOTS")
PAGES = ("README.md", "DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/RESULTS.md")
"""Of the repository, outside of docs/."""
# Code, which stays as it is; or a link.
LINK = re.compile(r"(?ms)^ *```.*?^ *```$|`[^`\n]+`|\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
LOOKS = ("light", "dark")
PICTURE = re.compile(r"(?m)^<!-- picture ([\w-]+): (.*?) -->$")

PARTS: dict[str, tuple[str, ...]] = {
    "lockbeat": ("client", "program", "worker", "leases", "store", "retry"),
    "jobs": ("jobs",),
    "calendars": ("calendars",),
    "claims": ("claims",),
    "locks": ("locks", "fences"),
}
"""Pages of names that `lockbeat` has, by the modules which define them."""
VERBS = {
    "lb.jobs": "lockbeat.jobs.Jobs",
    "lb.calendars": "lockbeat.calendars.Calendars",
    "lb.tasks": "lockbeat.tasks.Tasks",
    "lb.claims": "lockbeat.claims.Claims",
    "lb.locks": "lockbeat.locks.Locks",
    "lb.fenced": "lockbeat.fences.Fenced",
}
"""What the verbs of a client are."""
ORDER = {
    "lb.jobs": "put put_one get get_many list all trigger pause resume skip_next delete upcoming next ledger history why changes "
    "apply backfill get_backfill backfills pause_backfill resume_backfill cancel_backfill",
    "lb.calendars": "put get list users delete",
    "lb.tasks": "spawn spawn_many wait get list counts queues cancel retry dead redrive purge "
    "claim heartbeat complete fail defer release release_all",
    "lb.claims": "acquire renew complete fail release release_all hold handle owns is_claimed get list active expired cleanup "
    "stats",
    "lb.locks": "lock try_acquire renew release is_locked owner holder list unlock release_all",
    "lb.fenced": "set get check delete",
}
"""What programs call comes first, and what only our own parts call is left out: see tests/unit/test_sync_surface.py, WITHIN."""
MODULES = ("triggers", "tasks", "errors", "events", "sync", "web", "celery", "testing", "metrics", "otel", "logs", "alarms")
"""Pages of modules to import from."""
OF_OTEL = ("instrument", "uninstrument")


def where(path: str) -> str:
    """Where a file of the repository stands on the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def links(path: str, text: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    for found in LINK.finditer(text):
        if found[2] and "://" not in found[2]:
            yield _named(path, found[2])


def _named(path: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def public(module: Any) -> list[str]:
    """The names to be imported from a module."""
    if module.__name__ == "lockbeat.otel":
        return list(OF_OTEL)
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return [name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]


def reference() -> dict[str, str]:
    """The pages of the reference, by their names."""
    top = import_module("lockbeat")
    elsewhere = {name for page in MODULES if page != "sync" for name in public(import_module(f"lockbeat.{page}"))}
    home = {name: getattr(top, name).__module__.split(".")[1] for name in top.__all__}
    made = {"commands": _commands()}
    for page, parts in PARTS.items():
        names = [f"lockbeat.{name}" for name in sorted(home) if home[name] in parts and name not in elsewhere]
        verbs = [path for path in VERBS.values() if path.split(".")[1] in parts]
        module = top if page == "lockbeat" else import_module(f"lockbeat.{page}")
        made[page] = _page(module, [*verbs, *names])
    for page in MODULES:
        module = import_module(f"lockbeat.{page}")
        same = [name for name in public(module) if name in home and getattr(module, name) is getattr(top, name)]
        own = [name for name in public(module) if page != "sync" or name not in same]
        paths = [f"lockbeat.{name}" if name in same else f"lockbeat.{page}.{name}" for name in own]
        made[page] = _page(module, paths, same if page == "sync" else ())
    return made


def _page(module: Any, paths: list[str], same: Any = ()) -> str:
    text = f"# {module.__name__}\n\n{markdown(inspect.getdoc(module) or '')}\n"
    if same:
        text += "\nAs in `lockbeat`: " + ", ".join(f"[{name}][lockbeat.{name}]" for name in same) + ".\n"
    of = {path: called for called, path in VERBS.items()}
    for path in paths:
        options = dict[str, Any]()
        if path in of:  # nobody makes one: a client has it
            options = {"heading": of[path], "toc_label": of[path], "show_bases": False, "merge_init_into_class": False}
            options["members"] = ORDER[of[path]].split()
        elif same:  # the blocking verbs differ from the others by `await` alone
            options = {"show_if_no_docstring": False}
        text += f"\n::: {path}\n    options: {json.dumps(options)}\n"
    return text


def _commands() -> str:
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    app = import_module("lockbeat.cli._app").app
    command = get_command(app)
    context: Any = command.make_context("lockbeat", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="lockbeat", title="Commands")
    return re.sub(r"(?ms)^\*\*Commands\*\*:$.*?(?=^#)", "", text)  # the headings list them, too


PARAMETERS = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)")


def markdown(docstring: str) -> str:
    """A docstring as Markdown: its lines `name: meaning` become a list, a tree of names is kept as it is."""
    first, *others = re.split(r"\n\s*\n", docstring)
    text = "\n\n".join([first, *(_paragraph(other.splitlines()) for other in others)])
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1](../\1.md)", text)


def _paragraph(lines: list[str]) -> str:
    if any(line.startswith("├") for line in lines):
        return "\n".join(["```text", *lines, "```"])
    if not (PARAMETERS.match(lines[0]) and not lines[0].startswith("Raises")):
        return "\n".join(lines)
    found = list[str]()
    for line in lines:
        if (one := PARAMETERS.match(line)) and one[1] != "Raises":
            found.append(f"- `{one[1]}`: {one[2]}")
        elif line.startswith(" "):
            found.append(f"    {line.strip()}")
        else:
            found += ["", line]
    return "\n".join(found)


class Plain(griffe.Extension):
    """Has mkdocstrings show docstrings as `markdown` makes them."""

    def on_instance(self, *, obj: griffe.Object, **_options: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(inspect.cleandoc(obj.docstring.value))


_sources = dict[str, str]()
_nav: list[Any] = []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    _sources.clear()
    for file in files.documentation_pages():
        _sources[file.src_uri] = f"docs/{file.src_uri}"
    for path in PAGES:
        _sources[where(path)] = path
        files.append(File.generated(config, where(path), content=(ROOT / path).read_text()))
    for path in sorted({to for source in _sources.values() for to in links(source, (ROOT / source).read_text())}):
        if (ROOT / path).is_file() and where(path) not in files.src_uris:
            files.append(File.generated(config, where(path), abs_src_path=str(ROOT / path)))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    names = {name for path in _sources.values() for name, _ in PICTURE.findall((ROOT / path).read_text())}
    for shot in (Path(SHOTS) / f"{name}-{look}.png" for name in sorted(names) for look in LOOKS) if SHOTS else ():
        if shot.exists():
            files.append(File.generated(config, f"pictures/{shot.name}", abs_src_path=str(shot)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    _nav[:] = nav.items


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = _sources.get(page.file.src_uri)
    if source is None:
        return text

    def pictured(picture: re.Match[str]) -> str:
        name, words = picture.groups()
        if not SHOTS:
            return ""
        looks = [look for look in LOOKS if f"pictures/{name}-{look}.png" in files.src_uris]
        if len(looks) < len(LOOKS):
            log.warning("%s: the browser tests have left no picture of %s in %s", source, name, SHOTS)
        return "\n".join(f"![{words}](pictures/{name}-{look}.png#only-{look})" for look in looks)

    return PICTURE.sub(pictured, moved(text, source, posixpath.dirname(where(source))))


def moved(text: str, source: str, folder: str) -> str:
    """The text of a page of the repository, with its links as they are in a folder of the site."""

    def lead(link: re.Match[str]) -> str:
        words, target, anchor = link.groups()
        if not target or "://" in target:
            return link[0]
        path = _named(source, target)
        if (ROOT / path).is_dir():
            if f"{path}/README.md" not in PAGES:
                return str(words)  # it has no page
            path = f"{path}/README.md"
        return f"[{words}]({posixpath.relpath(where(path), folder or '.')}{anchor or ''})"

    return LINK.sub(lead, text)


def address(config: MkDocsConfig, path: str) -> str:
    """Of a page, for who has llms.txt alone: the whole of it, where it is known."""
    return urljoin(config.site_url or "", path)


def on_post_build(config: MkDocsConfig) -> None:
    site = Path(config.site_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    full = list[str]()

    def tell(items: list[Any], heading: str) -> None:
        for item in items:
            if isinstance(item, Section):
                lines.extend(["", f"{heading} {item.title}"] + [""] * (not isinstance(item.children[0], Section)))
                tell(item.children, heading + "#")
                continue
            name, source = item.file.src_uri, _sources.get(item.file.src_uri)
            if source:
                text = (ROOT / source).read_text()
                full.append(moved(text, source, ""))
                (site / name).write_text(moved(text, source, posixpath.dirname(name)))
            path = name if source else item.file.dest_uri
            lines.append(f"- [{item.title}]({address(config, path)}): {summary(item.markdown)}")

    tell(_nav, "##")
    (site / "llms.txt").write_text("\n".join(lines) + "\n")
    (site / "llms-full.txt").write_text("\n\n".join(full))


def summary(text: str) -> str:
    """The first paragraph of a page, without its links."""
    plain = LINK.sub(lambda link: link[0] if link[1] is None else link[1], text)
    for block in re.split(r"\n\s*\n", plain):
        if not re.match(r"#|```|<|\||:::|- ", block):
            return " ".join(block.split())
    return ""
