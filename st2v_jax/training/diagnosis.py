"""Finds where values stop being finite, by computing the loss again, one operation at a time."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from st2v_jax import trees
from st2v_jax.errors import TrainingError


def check_finite(rows, objective, now, frozen, key) -> None:
    """Raises TrainingError where a loss or a gradient of these metrics is not finite: at which step, and where first.

    rows: [(number of the step, dict of floats)]. now: the state that the step started from, which did not take it.
    key: the run's key.
    """
    bad = next((row for row in rows if not all(math.isfinite(row[1][name]) for name in ('loss', 'grad_norm'))), None)
    if bad is None:
        return
    number, metrics = bad
    batch = jax.jit(objective.draw)(next(objective.data_from(int(now.step))), jax.random.fold_in(key, now.step))
    where = not_finite(objective.direct, now.params, frozen, batch)
    raise TrainingError(
        f'step {number}: loss {metrics["loss"]}, gradient norm {metrics["grad_norm"]}; not finite first {where}. The '
        'last checkpoint is from before that. Lower config.schedule.peak or compute in float32'
    )


def not_finite(loss: Callable, params: Any, frozen: Any, batch: Any) -> str:
    """Names what is not finite first in loss(params, batch) or its gradient, such as 'after unet/...' or 'in batch 0'.

    loss: (params, batch) -> (loss, dict of scalars), without rematerialisation.
    """
    joined = trees.join(params, frozen)
    for what, tree in (('parameter', joined), ('batch', batch)):
        if bad := _bad_leaves(tree):
            return f'in {what} {bad[0]}'
    if layer := _bad_layer(loss, joined, batch):
        return f'after {layer}'
    grads = jax.jit(jax.grad(lambda params: loss(trees.join(params, frozen), batch)[0]))(params)
    bad = _bad_leaves(grads)
    return f'in the gradient of {", ".join(bad[:3])}' if bad else 'nowhere when the step is repeated'


def _bad_leaves(tree):
    leaves = jax.tree.leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator='/') for path, leaf in leaves if not _finite([leaf])]


def _bad_layer(loss, params, batch):
    """The first layer whose result is not finite, by the path of its parameters; None if the loss is finite.

    Only the inputs and outputs of layers are checked: in between, a softmax may hold infinities.
    """
    closed = jax.make_jaxpr(loss)(params, batch)
    jaxpr, leaves = closed.jaxpr, jax.tree.leaves_with_path((params, batch))
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *(leaf for _, leaf in leaves)]))
    paths = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in jax.tree.leaves_with_path(params)]
    of_parameter = dict(zip(jaxpr.invars, paths))  # also what is computed from one parameter alone, such as its cast
    left = Counter(v for equation in jaxpr.eqns for v in equation.invars if not isinstance(v, Literal))
    layer = 'the batch'
    for equation in jaxpr.eqns:
        variables = [v for v in equation.invars if not isinstance(v, Literal)]
        ins = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        outs = equation.primitive.bind(*ins, **equation.primitive.get_bind_params(equation.params))
        outs = outs if equation.primitive.multiple_results else [outs]
        values.update(zip(equation.outvars, outs))
        used = [of_parameter[v] for v in variables if v in of_parameter]
        if used and len(used) == len(variables):
            of_parameter.update(dict.fromkeys(equation.outvars, used[0]))
        elif used:
            if not _finite(ins):
                return layer
            layer = used[0].rpartition('/')[0]
            if not _finite(outs):
                return layer
        left.subtract(variables)
        for v in variables:
            if not left[v] and v not in jaxpr.outvars:
                values.pop(v, None)
    return None if _finite([values[jaxpr.outvars[0]]]) else layer


def _finite(arrays):
    inexact = [a for a in arrays if jnp.issubdtype(a.dtype if hasattr(a, 'dtype') else np.result_type(a), jnp.inexact)]
    return all(bool(jnp.isfinite(a).all()) for a in inexact)
