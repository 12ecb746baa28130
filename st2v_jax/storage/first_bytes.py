"""What a file is by its first bytes, whatever its name says; each thing in the place of weights has its own remedy."""

HEAD = 512  # bytes that are looked at
AGAIN = 'download it again'
UNPACK = 'unpack it and give what is in it'
OTHER = 'which is not read here: look for the .safetensors, .ckpt or .bin of the same model'

# How text begins that lies in the place of a file, in lower case; what it is, and what helps
TEXTS = {
    'version https://git-lfs': 'is a git-lfs pointer, not the file itself: `git lfs pull` fetches that',
    '<?xml': f'is an XML reply of a server, not the file itself: {AGAIN}',
    '<error': f'is an XML reply of a server, not the file itself: {AGAIN}',
    '<': f'is a web page, not the file itself: {AGAIN}',
}
OTHERS = {
    b'\x1f\x8b': f'is a gzip archive: {UNPACK}',
    b'BZh': f'is a bzip2 archive: {UNPACK}',
    b'\xfd7zXZ\0': f'is an xz archive: {UNPACK}',
    b'(\xb5/\xfd': f'is a zstd archive: {UNPACK}',
    b'7z\xbc\xaf\x27\x1c': f'is a 7z archive: {UNPACK}',
    b'Rar!\x1a\x07': f'is a RAR archive: {UNPACK}',
    b'PK\x05\x06': f'is an empty zip archive: {AGAIN}',
    b'GGUF': f'is a GGUF file of llama.cpp, {OTHER}',
    b'lmgg': f'is a GGML file of llama.cpp, {OTHER}',
    b'tjgg': f'is a GGML file of llama.cpp, {OTHER}',
    b'\x89HDF\r\n\x1a\n': f'is an HDF5 file, as of Keras, {OTHER}',
    b'\x93NUMPY': f'is a numpy array, {OTHER}',
}


def is_safetensors(head: bytes) -> bool:
    """Whether a file with this head has the layout of safetensors: the length of a header, and a header in JSON."""
    return head[4:9] == b'\0\0\0\0{'


def is_torch(head: bytes) -> bool:
    """Whether a file with this head may be of torch.save: a zip archive or, before torch 1.6, a pickle."""
    return head.startswith((b'PK\x03\x04', b'\x80'))


def placeholder(head: bytes) -> str | None:
    """What the text is that lies in the place of a file, and what helps, as 'is a web page, ...'; None for the rest."""
    text = head.removeprefix(b'\xef\xbb\xbf')[:64].decode('latin-1').strip().lower()
    return next((what for begin, what in TEXTS.items() if text.startswith(begin)), None)


def stand_in(head: bytes) -> str | None:
    """What a file is that is none of weights, and what helps, as 'is empty: ...'; None for what may be weights."""
    if is_safetensors(head) or is_torch(head):
        return None
    if not head:
        return f'is empty: {AGAIN}'
    if not head.strip(b'\0'):
        return f'begins with nothing but zeros, as a download that has not finished: {AGAIN}'
    if what := next((what for begin, what in OTHERS.items() if head.startswith(begin)), None):
        return what
    if head[257:262] == b'ustar':
        return f'is a tar archive: {UNPACK}'
    if head[4:8] == b'TFL3' or (head[0] == 8 and head[1:2] < b'\x20' and head[2:3] == b'\x12'):
        return f'is a model of ONNX or TensorFlow, {OTHER}'
    if 0x81 <= head[0] <= 0x8F and (b'\xa1' <= head[1:2] <= b'\xbf' or head[1:2] == b'\xd9'):
        return f'is a msgpack file, as of Flax, {OTHER}'
    if any(byte < 0x20 and byte not in b'\t\n\r' for byte in head):
        return None
    text = head.decode('utf-8', 'replace').strip('\ufeff \t\r\n')
    shown = repr(text.splitlines()[0][:60]) if text else 'blank'
    return placeholder(head) or f'is text, not the file itself ({shown}): {AGAIN}'
