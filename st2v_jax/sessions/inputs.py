"""What determines a chunk, of which its id is the hash."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from st2v_jax.models.system import Prompt
from st2v_jax.sessions import fingerprint
from st2v_jax.sessions.branches import Branch, Recipe
from st2v_jax.streaming import stream
from st2v_jax.streaming.generate import Model, encode, text_ids
from st2v_jax.streaming.prompt_schedule import Text
from st2v_jax.tokenizer import Tokenizer


def inputs_of(branch: Branch, model: Model, about: dict[str, Any]) -> list[dict[str, Any]]:
    """What determines each chunk of a branch, made or not, as JSON values; about: the head of the session."""
    contract = branch.counted(model.config.contract)
    count = max(contract.chunks(branch.num_frames), len(branch.chunks))
    keys = {recipe.seed: stream.video_keys([recipe.seed]) for recipe in branch.recipes}
    parent, found = None if branch.given is None else branch.given.id, []
    for number in range(count):
        recipe = branch.recipe(number)
        text = recipe.prompts.of_chunk(contract, number)
        settings = dataclasses.asdict(recipe.settings)
        settings.pop('decode_frames')
        inputs = {
            'kind': 'chunk',
            'parent': parent,
            'number': number,
            'ids': [*token_ids(model.tokenizer, text.prompt)],
            'following': None if text.following is None else [*token_ids(model.tokenizer, text.following)],
            'share': text.share,
            'null_ids': [*token_ids(model.tokenizer, recipe.negative_prompt)],
            'settings': settings,
            **_key(keys[recipe.seed]),
            **{name: about[name] for name in ('format', 'frame_size', 'dtype', 'weights')},
        }
        inputs = drawn(inputs, recipe.seed, branch.draw(number))
        parent = fingerprint.digest(inputs)
        found.append(inputs)
    return found


def drawn(inputs: dict[str, Any], seed: int, draw: int) -> dict[str, Any]:
    """What determines another draw of a chunk than the first, whose inputs are given: it has another key."""
    return inputs | _key(stream.redrawn(stream.video_keys([seed]), draw)) | {'draw': draw} if draw else inputs


def _key(key):
    return {'key': np.asarray(jax.random.key_data(key)).ravel().tolist(), 'key_kind': str(jax.random.key_impl(key))}


@functools.lru_cache(256)
def token_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The ids of a text, without the warning about what does not fit."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'the prompt is longer')  # who asks for it has been told
        return tuple(tokenizer.ids([text])[0].tolist())


def same(recipes: Sequence[Recipe], others: Sequence[Recipe], tokenizer: Tokenizer) -> bool:
    """Whether recipes ask for the same: texts are compared as the model reads them."""

    def read(recipe):
        prompts = recipe.prompts
        texts = [token_ids(tokenizer, text) for text in (*prompts.prompts, recipe.negative_prompt)]
        frames = [frame for frame, _ in prompts.changes]
        return texts, frames, prompts.blend_frames, recipe.start, recipe.seed, recipe.settings, recipe.gate.redraws

    return [*map(read, recipes)] == [*map(read, others)]


def encoded(model: Model, text: Text, negative_prompt: str) -> Prompt:
    """The Prompt of a chunk that is told `text`."""
    ids = {one: np.array(token_ids(model.tokenizer, one), np.int32) for one in (text.prompt, text.following) if one}
    return encode(model, text_ids(ids, [text]), np.array([token_ids(model.tokenizer, negative_prompt)], np.int32))
