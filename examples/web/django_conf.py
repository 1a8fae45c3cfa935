"""For gunicorn: when a worker has loaded the project, it starts the beat. Nothing need stop it: the worker's end does."""


def post_worker_init(worker):
    from django_app import beat

    beat.start()
