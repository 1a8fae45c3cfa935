"""For gunicorn: threads are not forked, so each worker starts the beat itself. Nothing need stop it: the worker's end does."""


def post_worker_init(worker):
    from flask_app import beat

    beat.start()
