"""CLIP's byte-pair tokenizer, offline, and the short vocabulary of a small text tower.

CLIP's 49,408 tokens come from the vocabulary file that ships in `assets/clip_vocabulary`. The small text tower of the
shipped model has embedding rows only for the tokens of its captions, and its tokenizer counts in those rows. Row 0
stands for every word that the tower never saw. The last row is the end token, so the largest id marks the end of a
prompt as it does in CLIP.
"""

import functools
import gzip
import html
import json
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from st2v_jax.storage.atomic import write_bytes

VOCABULARY = Path(__file__).parent / 'assets' / 'clip_vocabulary' / 'bpe_simple_vocab_16e6.txt.gz'
LENGTH = 77  # tokens of a prompt, including start and end
START, END = 49406, 49407
UNKNOWN = -1  # row 0 of a small tower has this in place of a CLIP token
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+)"  # how CLIP splits a text before merging
_MERGES = END + 1 - 512 - 2  # the vocabulary is 256 bytes, the same at the end of a word, merges, start and end


class Tokenizer:
    """Prompts to token ids: `Tokenizer()` gives CLIP's ids, `Tokenizer(rows, words)` the rows of a small tower.

    Args:
      rows: the CLIP token of each row, [UNKNOWN, ..., START, END] as from `for_words`, or None for all of CLIP.
      words: those that the tower was trained on. Without them every word whose tokens have rows counts as known.
      pad: the id after the end of a prompt. None is the end token, as in Hugging Face's CLIP; OpenCLIP and the
        tokenizers of Stable Diffusion 2 use 0.
      unescape: whether `&amp;` and the like are read as the characters that they stand for, as OpenCLIP does and
        Hugging Face does not.
    """

    def __init__(
        self,
        rows: Iterable[int] | None = None,
        words: Iterable[str] = (),
        *,
        pad: int | None = None,
        unescape: bool = False,
    ):
        self.unescape = unescape
        self.rows = None if rows is None else tuple(int(token) for token in rows)
        self.words = tuple(words)
        if self.rows is None:
            if self.words:
                raise ValueError('only a tower with rows of its own has words; use Tokenizer.for_words')
            self.start, self.end, self.size = START, END, END + 1
        else:
            _check_rows(self.rows)
            self._row_of = {token: row for row, token in enumerate(self.rows)}
            self.start, self.end, self.size = self._row_of[START], len(self.rows) - 1, len(self.rows)
        self.pad = self.end if pad is None else int(pad)
        if not 0 <= self.pad < self.size:
            raise ValueError(f'the padding id must be one of the {self.size} ids of this tokenizer, not {pad}')

    @classmethod
    def for_words(cls, words: Iterable[str]) -> 'Tokenizer':
        """The tokenizer of a small tower, with rows for exactly the tokens that spell `words`, in CLIP's order."""
        words = tuple(sorted({' '.join(word.lower().split()) for word in words}))
        tokens = sorted({token for word in words for group in _groups(word) for token in group})
        return cls([UNKNOWN, *tokens, START, END], words)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'Tokenizer':
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for values that no tokenizer has."""
        return cls(values['rows'], values['words'], pad=values['pad'])

    def to_dict(self) -> dict[str, Any]:
        """The words, rows and padding as JSON values; `unescape` is not among them, as it follows from the network."""
        return {'words': self.words, 'rows': self.rows, 'pad': self.pad}

    def ids(self, prompts: Sequence[str]) -> np.ndarray:
        """Ids int32 [n, 77] of a list of n prompts: start, the prompt's tokens, end, padding.

        A prompt of more than 75 tokens is cut, with a warning that says what was lost. The empty prompt is start and
        end only. Raises TypeError for a single string, whose letters would be read as prompts.
        """
        if isinstance(prompts, str):
            raise TypeError(f'ids takes a list of prompts, not the single string {prompts!r}')
        ids = np.full((len(prompts), LENGTH), self.pad, np.int32)
        for row, prompt in zip(ids, prompts):
            tokens, lost = self._split(prompt)
            if lost:
                warnings.warn(lost_message(lost), stacklevel=2)
            row[: len(tokens) + 2] = [self.start, *tokens, self.end]
        return ids

    def lost(self, prompt: str) -> str:
        """The end of the prompt that does not fit into 77 tokens, as text in lower case; '' if all of it fits."""
        return self._split(prompt)[1]

    def unknown_words(self, prompt: str) -> list[str]:
        """The words and signs of the prompt that the tower never saw, each once and in order, [] for all of CLIP.

        Punctuation and what cannot be seen are not among them: nobody expects these to show in a video.
        """
        if self.rows is None:
            return []
        unknown = (_text(group) for group in _groups(prompt, self.unescape) if not self._knows(group))
        return list(dict.fromkeys(word for word in unknown if _says_something(word)))

    def reaches(self, prompt: str) -> bool:
        """Whether anything of the prompt reaches the tower: a word that it knows, or for all of CLIP any character."""
        nothing = {START, END} if self.rows is None else {0, self.start, self.end}
        return not nothing.issuperset(self._split(prompt)[0])

    def _split(self, prompt):
        """(ids that fit between start and end, the text that did not fit)."""
        room, tokens, groups = LENGTH - 2, [], _groups(prompt, self.unescape)
        for kept, group in enumerate(groups):
            tokens += self._to_ids(group)
            if len(tokens) > room:
                # CLIP cuts between tokens, not between words: the part of this word that fits stays
                return tokens[:room], ' '.join(map(_text, groups[kept:]))
        return tokens, ''

    def _to_ids(self, group):
        if self.rows is None:
            return list(group)
        if self._knows(group):
            return [self._row_of[token] for token in group]
        # Punctuation that no caption used means nothing to this tower: it is left out, not read as a word
        return [0] if _is_word(_text(group)) else []

    def _knows(self, group):
        return group in self._known_groups if self.words else all(token in self._row_of for token in group)

    @functools.cached_property
    def _known_groups(self):
        return {group for word in self.words for group in _groups(word)}


def _check_rows(rows):
    if len(rows) < 3 or rows[0] != UNKNOWN or rows[-1] != END or START not in rows:
        raise ValueError(
            f'rows must begin with {UNKNOWN} (unknown), hold {START} (start) and end with {END} (end), '
            f'not {list(rows[:2])}..{list(rows[-2:])}'
        )
    if len(set(rows)) != len(rows) or not all(0 <= token <= END for token in rows[1:]):
        raise ValueError(f'rows after the first must be different tokens of CLIP (0..{END})')


def lost_message(lost: str) -> str:
    """The warning about the end of a prompt that did not fit, as from `Tokenizer.lost`."""
    shown = in_short(lost)
    count = '' if shown == lost else f' ({len(lost.split())} words)'
    return f'the prompt is longer than {LENGTH} tokens and was cut; lost: "{shown}"{count}'


def in_short(text: str, limit: int = 70) -> str:
    """A text for one line of a message: the first and the last words of it if it has more characters than `limit`."""
    text = ''.join(character if character.isprintable() else '?' for character in ' '.join(text.split()))
    if len(text) <= limit:
        return text
    first, last = text[: limit // 2], text[-(limit // 2) :]
    return f'{first.rpartition(" ")[0] or first} ... {last.partition(" ")[2] or last}'


def _is_word(text):
    return any(character.isalnum() for character in text)


def _says_something(text):
    """Whether a text holds more than punctuation, white space and characters that only say how others are shown."""
    kinds = {unicodedata.category(character) for character in text if not '\ufe00' <= character <= '\ufe0f'}
    return any(kind[0] not in 'PZ' and kind != 'Cf' for kind in kinds)


def _groups(prompt, unescape=False):
    """The prompt's tokens, as one tuple of CLIP ids for each word. CLIP marks the last token of a word."""
    if not isinstance(prompt, str):
        raise TypeError(f'a prompt is a string, not {prompt!r}')
    prompt = _fix_text()(prompt)
    if unescape:
        prompt = html.unescape(html.unescape(prompt))
    groups, word = [], []
    for token in _clip().encode(' '.join(prompt.split()).lower(), add_special_tokens=False).ids:
        word.append(token)
        if token >= START or _spelling()[token].endswith('</w>'):
            groups.append(tuple(word))
            word = []
    return groups + [tuple(word)] if word else groups


def _text(group):
    return _clip().decode(list(group), skip_special_tokens=False).replace('</w>', ' ').strip()


@functools.cache
def _fix_text():
    """The function that CLIP applies to a text first: ftfy corrects wrong encodings, curled quotes and the like."""
    try:
        from ftfy import fix_text
    except ImportError:  # a text that needs no correction comes out the same
        return functools.partial(unicodedata.normalize, 'NFC')
    return fix_text


@functools.cache
def _clip():
    """The tokenizers library's tokenizer with the shipped vocabulary, as transformers makes it, but without files."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    merges = [tuple(pair.split(' ')) for pair in _merges()]
    made = Tokenizer(BPE(vocabulary(), merges, end_of_word_suffix='</w>', unk_token=_spelling()[END]))
    made.add_special_tokens([_spelling()[START], _spelling()[END]])
    words = pre_tokenizers.Split(Regex(_WORDS), behavior='removed', invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return made


def vocabulary() -> dict[str, int]:
    """{token as it is spelled: id} of CLIP."""
    return {token: number for number, token in enumerate(_spelling())}


def write_vocabulary(folder: str | Path, pad: int = END) -> None:
    """Writes CLIP's vocabulary as the files of transformers' CLIPTokenizer, which then pads with the id `pad`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    settings = {'tokenizer_class': 'CLIPTokenizer', 'model_max_length': LENGTH, 'pad_token': _spelling()[pad]}
    settings |= {'bos_token': _spelling()[START], 'eos_token': _spelling()[END], 'unk_token': _spelling()[END]}
    files = {
        'vocab.json': json.dumps(vocabulary()),
        'merges.txt': '\n'.join(['#version: 0.2', *_merges(), '']),
        'tokenizer_config.json': json.dumps(settings),
    }
    for name, text in files.items():
        write_bytes(Path(folder, name), text.encode())


@functools.cache
def _merges():
    """The pairs that CLIP's byte-pair encoding merges, in the order of merging: 48,894 lines of two pieces."""
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode('utf-8').split('\n')
    return tuple(lines[1 : 1 + _MERGES])


@functools.cache
def _spelling():
    """How each of CLIP's tokens is spelled; a word's last token ends in </w>."""
    # Bytes are spelled as printable characters: printable ones stand for themselves, the others follow after 255
    printable = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    others = range(256, 256 + 256 - len(printable))
    letters = [chr(code) for code in (*printable, *others)]
    merged = [pair.replace(' ', '') for pair in _merges()]
    return (*letters, *(letter + '</w>' for letter in letters), *merged, '<|startoftext|>', '<|endoftext|>')
