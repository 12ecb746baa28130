"""The tokenizer gives CLIP's ids offline, and a small tower's rows for the words it knows."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from st2v_jax import tokenizer
from st2v_jax.tokenizer import END, START, Tokenizer, in_short, lost_message

CAT = [49406, 320, 1125, 539, 320, 2368, 49407]
WORDS = ('a', 'red', 'ball', 'moves', 'left', 'checkerboard', 'moves left')


def test_ids_are_those_of_clip():
    ids = Tokenizer().ids(['a photo of a cat', 'A  PHOTO of a cat', ''])
    assert ids.dtype == np.int32 and ids.shape == (3, 77)
    assert ids[0, :7].tolist() == CAT
    np.testing.assert_array_equal(ids[0], ids[1])
    assert ids[2, :2].tolist() == [START, END]
    assert (ids[0, 7:] == END).all()


def test_padding_is_a_choice():
    assert (Tokenizer(pad=0).ids(['a photo of a cat'])[0, 7:] == 0).all()
    with pytest.raises(ValueError, match='padding id'):
        Tokenizer(pad=END + 1)


def test_shipped_vocabulary_is_the_published_one():
    digest = hashlib.sha256(tokenizer.VOCABULARY.read_bytes()).hexdigest()
    assert digest == '924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a'
    ids = tokenizer.vocabulary()
    assert len(ids) == END + 1 and sorted(ids.values()) == [*range(END + 1)]
    assert (ids['<|startoftext|>'], ids['<|endoftext|>']) == (START, END)


def test_a_long_prompt_is_cut_and_says_what_was_lost():
    prompt = ' '.join(['cat'] * 74 + ['dog', 'under', 'the', 'moon'])
    with pytest.warns(UserWarning, match='longer than 77 tokens and was cut; lost: "under the moon"'):
        ids = Tokenizer().ids([prompt])
    assert ids[0, -1] == END and ids[0, -2] == Tokenizer().ids(['dog'])[0, 1]
    assert Tokenizer().lost(prompt) == 'under the moon'
    assert Tokenizer().lost('cat ' * 75) == ''


def test_a_cut_inside_a_word_names_the_whole_word():
    prompt = 'cat ' * 74 + 'supercalifragilistic'
    with pytest.warns(UserWarning, match='"supercalifragilistic"'):
        ids = Tokenizer().ids([prompt])
    assert (ids[0, 1:-1] != END).all()


def test_rows_hold_the_tokens_of_the_words_and_nothing_else():
    small = Tokenizer.for_words(WORDS)
    spelled = {token for word in WORDS for token in Tokenizer().ids([word])[0].tolist()}
    assert set(small.rows) == spelled | {tokenizer.UNKNOWN}
    assert small.rows[-1] == END and small.size == len(small.rows)


def test_rows_map_back_to_the_ids_of_clip():
    small = Tokenizer.for_words(WORDS)
    prompt = ['a red ball moves left', 'a checkerboard ball']
    rows = small.ids(prompt)
    np.testing.assert_array_equal(np.take(small.rows, rows), Tokenizer().ids(prompt))
    full = Tokenizer().ids(prompt)
    np.testing.assert_array_equal(rows.argmax(axis=1), full.argmax(axis=1))


def test_rows_survive_a_round_trip():
    small = Tokenizer.for_words(WORDS)
    again = Tokenizer(small.rows, small.words)
    prompt = ['a red ball, gleaming, moves left']
    np.testing.assert_array_equal(again.ids(prompt), small.ids(prompt))


def test_unseen_words_are_named_once_and_take_row_0():
    small = Tokenizer.for_words(WORDS)
    prompt = 'A red Elephant moves left, elephant unicycle!'
    assert small.unknown_words(prompt) == ['elephant', 'unicycle']
    assert small.unknown_words('a RED ball moves left.') == []
    rows = small.ids([prompt])[0]
    assert (rows == 0).sum() == 3
    assert Tokenizer().unknown_words(prompt) == []


def test_a_word_spelled_from_known_pieces_is_still_unknown():
    small = Tokenizer.for_words(['checkerboard', 'pinwheel'])
    assert small.unknown_words('checkerwheel') == ['checkerwheel']
    assert Tokenizer(small.rows).unknown_words('checkerwheel zebra') == ['zebra'], 'without words, tokens decide'


def test_unknown_punctuation_is_left_out():
    small = Tokenizer.for_words(WORDS)
    np.testing.assert_array_equal(small.ids(['a red ball.']), small.ids(['a red ball']))


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match='list of prompts'):
        Tokenizer().ids('a cat')
    with pytest.raises(TypeError, match='a prompt is a string, not 3'):
        Tokenizer().ids([3])
    with pytest.raises(ValueError, match='must begin with -1'):
        Tokenizer([5, START, END])
    with pytest.raises(ValueError, match='different tokens'):
        Tokenizer([-1, 5, 5, START, END])
    with pytest.raises(ValueError, match='for_words'):
        Tokenizer(words=('a',))


# Words that are hard to split in the same way: accents, scripts, emoji of several code points, typography, HTML.
_HARD = (
    'a red ball Bounces OVER café naïve Ünïcødé straße İstanbul 北京 東京タワー привет ελληνικά 😀 👩‍👩‍👧 🇩🇪 “quoted” '
    "it’s don't we'll 3.14 1,000 #hash @you e-mail under_score ½ ﬁne … — \u00a0 \t zero\u200bwidth ＦＵＬＬ x² ™ ✂️ "
    'नमस्ते สวัสดี '
    'AT&T <b>bold</b> &amp; &lt;tag&gt; &#39;s &eacute;t&eacute; a&amp;amp;b ’tis e\u0301 N\u0303 ſ'
)
HARD = _HARD.split(' ')
ENTITIES = {'&amp;', '&lt;tag&gt;', '&#39;s', '&eacute;t&eacute;', 'a&amp;amp;b'}


def sentences(count):
    random = np.random.default_rng(0)
    return [' '.join(random.choice(HARD, random.choice([1, 3, 8, 20, 120]))) for _ in range(count)]


@pytest.fixture(scope='module')
def open_clip():
    """open_clip's tokenizer, loaded from its file, because the package would import all of its models."""
    pytest.importorskip('torch')
    package = importlib.util.find_spec('open_clip')
    if package is None:
        pytest.skip('open_clip_torch is not installed')
    file = Path(package.submodule_search_locations[0], 'tokenizer.py')
    spec = importlib.util.spec_from_file_location('open_clip_tokenizer', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


@pytest.mark.parity
@pytest.mark.filterwarnings('ignore:the prompt is longer')
def test_ids_are_those_of_open_clip(open_clip):
    prompts = sentences(1000)
    theirs = open_clip(prompts).numpy()
    ours = Tokenizer(pad=0, unescape=True).ids(prompts)
    np.testing.assert_array_equal(ours, theirs)

    # The streaming model's tower, which reads text as transformers does, differs only in HTML: ftfy unescapes a text
    # that has no < in it; open_clip unescapes every text, twice.
    different = (Tokenizer(pad=0).ids(prompts) != theirs).any(1)
    assert 0 < different.sum() < 500
    for prompt in (prompt for prompt, differs in zip(prompts, different) if differs):
        assert ENTITIES & {*prompt.split()} and ('<' in prompt or 'a&amp;amp;b' in prompt)
    without = [prompt for prompt in prompts if not ENTITIES & {*prompt.split()}]
    np.testing.assert_array_equal(Tokenizer(pad=0).ids(without), open_clip(without).numpy())


def test_no_file_is_written_for_it(monkeypatch):
    monkeypatch.setattr('tempfile.gettempdir', None)
    tokenizer._clip.cache_clear()
    assert Tokenizer().ids(['a photo of a cat'])[0, :7].tolist() == CAT


@pytest.mark.parametrize('made', [Tokenizer(), Tokenizer(pad=0), Tokenizer.for_words(('a', 'red', 'ball'))])
def test_a_tokenizer_comes_back_from_json(made):
    again = Tokenizer.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.to_dict() == made.to_dict() and again.size == made.size
    np.testing.assert_array_equal(again.ids(['a red ball']), made.ids(['a red ball']))


@pytest.mark.filterwarnings('ignore:the prompt is longer')
def test_ids_are_those_of_the_folder_that_we_write(tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.write_vocabulary(tmp_path, pad=0)
    theirs, prompts = CLIPTokenizer.from_pretrained(tmp_path), ['a photo of a cat', 'café 😀 3.14', 'x ' * 90]
    ids = theirs(prompts, padding='max_length', max_length=77, truncation=True)['input_ids']
    np.testing.assert_array_equal(Tokenizer(pad=0).ids(prompts), ids)


SMALL = Tokenizer.for_words(('a', 'red', 'ball'))
NOTHING = ['', ' ', '\u3000\u2003\t', '\x07\x1b[31m\x00', '\ufeff']  # no tower has anything of these
SIGNS = ['🔴🎈', '🇩🇪', '...!?', '—', '\u200b', '\u0301', '\ue000', '★', '+']


@pytest.mark.parametrize('prompt', [*NOTHING, *SIGNS, '红球', 'красный мяч', 'zebra', 'zebra!', '<|endoftext|>'])
def test_nothing_known_is_nothing_that_reaches_a_small_tower(prompt):
    assert not SMALL.reaches(prompt)
    assert SMALL.reaches(f'a {prompt}')


def test_whatever_can_be_read_reaches_all_of_clip():
    whole = Tokenizer()
    assert all(map(whole.reaches, [*SIGNS, '红球', 'zebra', 'a']))
    assert not any(map(whole.reaches, [*NOTHING, '<|endoftext|>', '<|startoftext|>']))


@pytest.mark.parametrize(
    'prompt, named',
    [
        ('a red 🔴 ball', ['🔴']),
        ('🔴🎈', ['🔴🎈']),
        ('a 红球', ['红球']),
        ('a red ball, in -- well ... here!', ['in', 'well', 'here']),
        ('5 + 5 = $ ★', ['5', '+', '=', '$', '★']),
        ('a\u200b red\u200d ball\ufe0f', []),
        ('zebra \u0301', ['zebra', '\u0301']),
    ],
)
def test_what_a_small_tower_does_not_know_is_named_but_for_punctuation(prompt, named):
    assert SMALL.unknown_words(prompt) == named
    assert Tokenizer().unknown_words(prompt) == []


def test_long_prompts_are_reported_in_one_short_line(caplog, capfd):
    tokenizer = Tokenizer()
    for prompt in ('one two three ' * 170 + 'end', 'x' * 5000, 'a\n' * 500):
        with pytest.warns(UserWarning) as told:
            tokenizer.ids([prompt])
        (line,) = (str(warning.message) for warning in told)
        assert line.startswith('the prompt is longer than 77 tokens and was cut; lost: "') and len(line) <= 200
    assert 'lost: "one two three one' in lost_message(tokenizer.lost('one two three ' * 170 + 'end'))
    assert lost_message(tokenizer.lost('one two three ' * 170 + 'end')).endswith('three end" (436 words)')
    assert not caplog.records and capfd.readouterr().err == '', 'nothing of the library below'


def test_texts_in_messages_have_no_control_characters_and_no_middle():
    assert in_short('a\nb \x1b[2J\u200bc') == 'a b ?[2J?c'
    assert in_short('word ' * 100) == 'word word word word word word word ... word word word word word word word'
    assert len(in_short('x' * 1000)) <= 80
