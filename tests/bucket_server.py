"""Google Cloud Storage on loopback: the emulator of the package gcp-storage-emulator, and what it lacks.

Added to its answers, as the documentation of the JSON API has it:
  - the header X-Goog-Generation of a download, without which tensorstore says "Malformed StorageGeneration"
  - ifGenerationMatch and ifGenerationNotMatch, by which checkpoints are written; the emulator ignores them
  - moving an object, which gcsfs otherwise tries for half a minute before it copies
"""

import sys
import threading
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import HTTPServer

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

BUCKET = 'bucket'
NOTHING = '0'  # the generation of an object that is not there


@contextmanager
def serve():
    """Yields the environment for a client of a server with one bucket, whose objects are in memory."""
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    answering = Server(('127.0.0.1', 0), partial(Handler, storage))
    thread = threading.Thread(target=answering.serve_forever)
    thread.start()
    address = f'http://127.0.0.1:{answering.server_address[1]}'
    try:
        yield {
            'STORAGE_EMULATOR_HOST': address,  # gcsfs, Google's client
            'TENSORSTORE_GCS_HTTP_URL': address,
            'CLOUD_STORAGE_EMULATOR_ENDPOINT': address,  # array_record
            'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # which asks Google itself about the bucket
            'NO_GCE_CHECK': 'true',
            'NO_PROXY': '127.0.0.1',
            'no_proxy': '127.0.0.1',
        }
    finally:
        answering.shutdown()
        thread.join()
        answering.server_close()


class Server(HTTPServer):
    """Answers one request after the other, which keeps a condition and what depends on it together."""

    request_queue_size = 100

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # of a client that was killed
            super().handle_error(request, client_address)


class Handler(server.RequestHandler):
    """Answers with the generation of an object, if it is the one that is asked for."""

    def log_message(self, *_):
        pass


def _generation(storage, bucket, name):
    try:
        return storage.get_file_obj(bucket, name)['generation']
    except NotFound:
        return NOTHING


def _of_a_generation(handler):
    def handle(request, response, storage):
        wanted, unwanted = (request.query.get(f'ifGeneration{key}', [None])[0] for key in ('Match', 'NotMatch'))
        names = request.query.get('name', [None])
        place = storage, request.params['bucket_name'], request.params.get('object_id', names[0])
        now = _generation(*place)
        if wanted not in (None, now):
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif unwanted == now:
            response.status = (
                HTTPStatus.NOT_MODIFIED if request.method == server.GET else HTTPStatus.PRECONDITION_FAILED
            )
        else:
            handler(request, response, storage)
            response['X-Goog-Generation'] = _generation(*place)

    return handle


def _move(request, response, storage):
    request.params['dest_bucket_name'] = request.params['bucket_name']
    objects.copy(request, response, storage)
    if response.status == HTTPStatus.OK:
        storage.delete_file(request.params['bucket_name'], request.params['object_id'])


_CONDITIONAL = {
    handler: _of_a_generation(handler) for handler in (objects.get, objects.insert, objects.delete, objects.download)
}
_MOVE = r'^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)/moveTo/o/(?P<dest_object_id>.+)$'
server.HANDLERS = (
    (_MOVE, {server.POST: _move}),
    *(
        (path, {method: _CONDITIONAL.get(handler, handler) for method, handler in handlers.items()})
        for path, handlers in server.HANDLERS
    ),
)
