"""Text files of any editor and system are read alike, and what is no text is told with file and line."""

import codecs

import pytest

from st2v_jax.storage.text import read_lines, read_object, read_objects

LINES = [(1, 'eine Kugel fällt'), (3, '球'), (4, 'a\u2028b\x85c')]
TEXT = 'eine Kugel fällt\n\n  球 \na\u2028b\x85c\n'


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize(
    'encode',
    [
        lambda text: text.encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode('utf-16-le'),
        lambda text: codecs.BOM_UTF16_BE + text.encode('utf-16-be'),
        lambda text: codecs.BOM_UTF32_LE + text.encode('utf-32-le'),
        lambda text: codecs.BOM_UTF32_BE + text.encode('utf-32-be'),
    ],
    ids=['plain', 'mark', 'utf-16-le', 'utf-16-be', 'utf-32-le', 'utf-32-be'],
)
def test_marks_and_ends_of_lines_make_no_difference(encode, end, tmp_path):
    (tmp_path / 'a.txt').write_bytes(encode(TEXT.replace('\n', end)))
    assert read_lines(tmp_path / 'a.txt') == LINES
    (tmp_path / 'a.txt').write_bytes(encode(TEXT.rstrip('\n').replace('\n', end)))
    assert read_lines(tmp_path / 'a.txt') == LINES, 'the last line needs no end'


def test_joined_files_keep_no_marks(tmp_path):
    (tmp_path / 'a.txt').write_bytes(codecs.BOM_UTF8 + b'# one\n' + codecs.BOM_UTF8 + b'# two\n')
    assert read_lines(tmp_path / 'a.txt') == [(1, '# one'), (2, '# two')]


@pytest.mark.parametrize(
    'data, told',
    [
        ('a\nb\ncaf\xe9\n'.encode('latin-1'), 'line 3: byte 0xe9 is not UTF-8: save the file as UTF-8'),
        ('\x93a\x94'.encode('latin-1'), 'line 1: byte 0x93 is not UTF-8: save'),
        ('a\r\nb\r\xff'.encode('latin-1'), 'line 3: byte 0xff is not UTF-8'),
        ('a\nb'.encode('utf-16-le'), 'line 1: a NUL character, which no text has: save the file as UTF-8'),
        (b'a\nb\0c', 'line 2: a NUL'),
        (codecs.BOM_UTF16_LE + b'a\0\n\0b', 'line 2: byte 0x62 is not UTF-16: save'),
        (b'\xed\xa0\x80', 'line 1: byte 0xed is not UTF-8'),
    ],
    ids=['latin-1', 'quotes of windows', 'ends of lines', 'utf-16 without a mark', 'NUL', 'cut utf-16', 'surrogate'],
)
def test_what_is_no_text_is_told_with_file_and_line(data, told, tmp_path):
    file = tmp_path / 'a.txt'
    file.write_bytes(data)
    with pytest.raises(ValueError) as error:
        read_lines(file)
    assert str(error.value).startswith(f'{file}, {told}') and '\n' not in str(error.value)


def test_lines_of_json_are_objects(tmp_path):
    file = tmp_path / 'a.jsonl'
    file.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}\r\n\r\n{"a": "\xe2\x80\xa8"}')
    assert read_objects(file) == [(1, {'a': 1}), (3, {'a': '\u2028'})]


@pytest.mark.parametrize(
    'line, told',
    [
        ('ball', 'not a JSON object: Expecting value, column 1'),
        ('{"a": 1,}', 'not a JSON object: '),
        ('[1]', 'a JSON object is expected, got list of 1'),
        ('"a"', "a JSON object is expected, got 'a'"),
        ('{"a": 1, "a": 2}', 'not a JSON object: a key comes twice'),
        ('<!DOCTYPE html>', 'is a web page, not the file itself: download it again'),
        ('[' * 100_000, 'not a JSON object: '),
    ],
)
def test_another_line_is_told_with_its_number(line, told, tmp_path):
    file = tmp_path / 'a.jsonl'
    file.write_text(f'{{"a": 1}}\n\n{line}\n')
    with pytest.raises(ValueError) as error:
        read_objects(file)
    assert str(error.value).startswith(f'{file}, line 3: {told}') and '\n' not in str(error.value)


def test_a_file_of_one_object_is_told_with_its_name(tmp_path):
    (tmp_path / 'a.json').write_text('{\n"a": 1,\n}')
    with pytest.raises(ValueError, match=r'a.json: not a JSON object: .*, line [23], column'):
        read_object(tmp_path / 'a.json')
    (tmp_path / 'a.json').write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert read_object(tmp_path / 'a.json') == {'a': 1}
