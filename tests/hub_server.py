"""The Hugging Face hub on loopback, with one repository and as much of the protocol as a reading client needs."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = 40 * 'a'


@contextmanager
def serve(repository, files):
    """Yields (environment for a client, list of the fetched files); files is {name: bytes} of `repository`."""
    fetched = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = unquote(urlsplit(self.path).path)
            if path == f'/api/models/{repository}' or path.startswith(f'/api/models/{repository}/revision/'):
                listed = {'id': repository, 'sha': COMMIT, 'siblings': [{'rfilename': name} for name in files]}
                return self.send(json.dumps(listed).encode(), body)
            if path.startswith(f'/api/models/{repository}/tree/'):
                tree = [
                    {'type': 'file', 'path': name, 'size': len(data), 'oid': _digest(data)}
                    for name, data in files.items()
                ]
                return self.send(json.dumps(tree).encode(), body)
            where, _, name = path.removeprefix(f'/{repository}/resolve/').partition('/')
            if path.startswith(f'/{repository}/resolve/') and where in (COMMIT, 'main') and name in files:
                if body:
                    fetched.append(name)
                return self.send(files[name], body, ETag=f'"{_digest(files[name])}"', **{'X-Repo-Commit': COMMIT})
            return self.send(b'{"error": "Repository not found"}', body, 404, **{'X-Error-Code': 'RepoNotFound'})

        def send(self, data, body, code=200, **headers):
            self.send_response(code)
            for name, value in {'Content-Length': str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f'http://127.0.0.1:{server.server_address[1]}'
        direct = dict.fromkeys(('NO_PROXY', 'no_proxy'), '127.0.0.1')
        settings = {'HF_HUB_OFFLINE': '0', 'HF_HUB_DISABLE_TELEMETRY': '1'}
        yield {'HF_ENDPOINT': address, **direct, **settings}, fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _digest(data):
    return hashlib.sha1(data).hexdigest()
