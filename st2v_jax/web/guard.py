"""What stands before the page: who may ask, for what, and from where; and that the browser asks nobody else."""

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
# All that the page needs; gradio has more, such as a proxy and a way to files by their paths
PATHS = ('/assets/', '/static/', '/theme.css', '/config', '/favicon.ico', '/manifest.json', '/st2v/', '/gradio_api/')
GRADIO = ('queue/', 'upload', 'upload_progress', 'heartbeat/', 'startup-events', 'info', 'cancel', 'reset')
HEADERS = {
    'content-security-policy': "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
}


class Guard:
    """An ASGI application around another one.

    Args:
      app: the other one.
      loopback: whether it is served to this machine only: then a page of another name is not it, so that no name
        server can lead a browser here.
      users: (user, password) of those who may ask; empty is everybody.
    """

    def __init__(self, app: Callable, *, loopback: bool, users: Sequence[tuple[str, str]]):
        self._app, self._loopback, self._users = app, loopback, users

    async def __call__(self, scope, receive, send):
        if scope['type'] == 'lifespan':
            return await self._app(scope, receive, send)
        if scope['type'] != 'http':  # the page has no websockets
            return await send({'type': 'websocket.close'})
        if refused := self._refused(scope):
            return await _answer(send, *refused)
        await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope):
        """(status, text, headers) of the answer to what is not let through; None for the rest."""
        headers = {name.decode('latin1'): value.decode('latin1') for name, value in scope['headers']}
        host = headers.get('host', '')
        if self._loopback and urlsplit(f'//{host}').hostname not in LOOPBACK:
            return 403, 'this page is served as 127.0.0.1 or localhost only', {}
        origin = headers.get('origin')
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, 'another page may not ask this one', {}
        if self._users and not self._known(headers.get('authorization', '')):
            return 401, 'a user and a password are needed', {'www-authenticate': 'Basic realm="st2v", charset="UTF-8"'}
        if not allowed(scope['path']):
            return 404, 'there is no such page', {}
        return None

    def _known(self, authorization):
        kind, _, given = authorization.partition(' ')
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(':')
        except (binascii.Error, UnicodeDecodeError):
            return False
        # all are compared, each in the same time
        pairs = [_equal(user, name) & _equal(password, word) for name, word in self._users]
        return kind.lower() == 'basic' and any(pairs)


def allowed(path: str) -> bool:
    """Whether the page needs a path."""
    if '..' in path or '\\' in path or '\0' in path:
        return False
    if path.startswith('/gradio_api/'):
        return path.removeprefix('/gradio_api/').startswith(GRADIO)
    return path == '/' or path.startswith(PATHS)


def _equal(one, other):
    return secrets.compare_digest(one.encode(), other.encode())


def _with_headers(send):
    async def sent(message):
        if message['type'] == 'http.response.start':
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = message | {'headers': [*message.get('headers', ()), *more]}
        await send(message)

    return sent


async def _answer(send, status, text, headers):
    headers = {'content-type': 'text/plain; charset=utf-8', **headers}
    head = [(name.encode(), value.encode()) for name, value in headers.items()]
    await _with_headers(send)({'type': 'http.response.start', 'status': status, 'headers': head})
    await send({'type': 'http.response.body', 'body': text.encode()})
