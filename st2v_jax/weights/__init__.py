"""Trained models on disk."""

from st2v_jax.weights.folder import (
    LONG_TERM,
    MEMORIES,
    NETWORKS,
    SHIPPED,
    abstract,
    bundled,
    describe,
    describe_refinement,
    held,
    load,
    load_config,
    load_tokenizer,
    networks,
    on_device,
    refinement,
    save,
    streaming,
)

__all__ = [
    'LONG_TERM', 'MEMORIES', 'NETWORKS', 'SHIPPED', 'abstract', 'bundled', 'describe',
    'describe_refinement', 'held', 'load', 'load_config', 'load_tokenizer', 'networks', 'on_device', 'refinement',
    'save', 'streaming',
]
