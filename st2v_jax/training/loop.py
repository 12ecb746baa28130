"""The training run from top to bottom: mesh, objective, state, step; then log, check, save and stop; then weights."""

import collections
import contextlib
import datetime
import itertools
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from st2v_jax import sharding, stopping, trees
from st2v_jax.checkpoint import Checkpoints, abstract
from st2v_jax.models import build
from st2v_jax.planning.device import matmul_rate
from st2v_jax.storage.atomic import write_bytes
from st2v_jax.storage.buckets import located
from st2v_jax.storage.lock import locked
from st2v_jax.storage.places import check_folder
from st2v_jax.training import autoencoder, contrastive, denoising, init, previews, processes, refiner, state, step
from st2v_jax.training.diagnosis import check_finite
from st2v_jax.training.limits import Clock
from st2v_jax.training.logs import Logs
from st2v_jax.weights.folder import save

OBJECTIVES = {  # by config.objective
    'autoencoder': autoencoder.objective,
    'contrastive': contrastive.objective,
    'denoising': denoising.objective,
    'refiner': refiner.objective,
}
IN_FLIGHT = 2  # steps that the host may be ahead of the devices; further ahead, its clock would be meaningless


def train(config: ConfigDict, workdir: str | Path, source: str | Path | None = None, *, command: str = '') -> str:
    """Trains one stage; returns 'finished', or 'stopped' if a signal ended it early (see `stopping`).

    Args:
      config: from a file in configs/.
      workdir: folder for checkpoints, metrics.jsonl, TensorBoard events, and at the end weights/ and summary.json. It
        may be in a bucket. The run resumes from the newest checkpoint there.
      source: weights to start from instead of `config.init.sources`, or None.
      command: how the run was started, for the summary.

    Raises ValueError if config, weights or checkpoint do not fit together, TrainingError if a loss is not finite,
    OutputError if another run is writing the folder, or nothing can be written there, and ConnectionError if another
    process of this run has gone.
    """
    processes.join(config.distributed)
    if not processes.is_first():  # which makes the folder itself, and may not have come to it yet
        located(workdir).parent.mkdir(parents=True, exist_ok=True)
    with processes.together(), locked(workdir) if processes.is_first() else contextlib.nullcontext():
        return _train(config, located(workdir), source, command)


def _train(config, workdir, source, command):
    began = time.monotonic()
    check_folder(workdir)
    if config.max_seconds and jax.process_count() > 1:
        raise ValueError('several processes have no common clock: limit the run by config.steps, with max_seconds=0')
    if config.objective not in OBJECTIVES:
        raise ValueError(f'objective is one of {", ".join(OBJECTIVES)}, not {config.objective!r}')
    mesh = sharding.make_mesh(config.mesh.to_dict())
    step.check_parts(config.batch_size, config.accumulation, mesh)
    key = jax.random.key(config.seed)
    model, params, tokenizer, origin = init.start(config, jax.random.fold_in(key, 2), source)
    workdir.mkdir(parents=True, exist_ok=True)
    with Logs(workdir, config) as logs, stopping.listening():
        logs.say(f'{config.stage}: {origin}; {len(jax.devices())} x {jax.devices()[0].device_kind}, preparing')
        objective = OBJECTIVES[config.objective](config, model, params, tokenizer, mesh, jax.random.fold_in(key, 0))
        trained, frozen = state.split(objective.params, objective.trained)
        optimizer = step.make_optimizer(**config.optimizer)
        places = sharding.shardings(jax.eval_shape(partial(state.create, optimizer=optimizer), trained), mesh)
        place_frozen = sharding.shardings(frozen, mesh)
        checkpoints = Checkpoints(workdir / 'checkpoints')
        _check_origin(workdir / 'origin.txt', origin, checkpoints.latest())
        now, progress = _restore_or_create(checkpoints, trained, optimizer, places, logs.say)
        frozen = sharding.place(build.cast(frozen, jnp.dtype(config.dtype)), place_frozen)
        key = jax.jit(partial(jax.random.fold_in, data=1), out_shardings=sharding.replicated(mesh))(key)
        run = step.compiled_step(config, objective.draw, objective.loss, optimizer, mesh, places, place_frozen)
        sizes = f'{build.parameter_count(trained):,} parameters trained, {build.parameter_count(frozen):,} frozen'
        logs.say(f'prepared in {time.monotonic() - began:.0f} s; {sizes}, from step {int(now.step)}')

        def finished(now):
            averaged = trees.join(objective.params, sharding.to_host(now.ema))
            return objective.finish(averaged, model) if processes.is_first() else ({}, model)

        def preview(number, now):
            networks, sized = finished(now)
            if processes.is_first():
                (workdir / 'previews').mkdir(exist_ok=True)
                path = workdir / 'previews' / f'step-{number:07}.mp4'
                logs.show(number, previews.write(config.previews, path, networks, sized, tokenizer, config.dtype))

        clock = Clock(config, progress, began)
        waiting = collections.deque()
        number = int(now.step)
        data = objective.data_from(number)
        if config.log_flops:
            first = next(data)
            data = itertools.chain([first], data)
            rate = matmul_rate(jnp.dtype(config.dtype)) * len(jax.devices())
            logs.work = step.needed_flops(objective, now.params, frozen, first), rate
        stop = False
        while number < config.steps and not clock.over and not stop:
            asked = time.monotonic()
            examples = next(data)
            logs.waited(time.monotonic() - asked)
            now, metrics = run(now, frozen, examples, np.float32(clock.progress(number)), key)
            number += 1
            waiting.append(metrics['loss'])
            if len(waiting) > IN_FLIGHT:
                jax.block_until_ready(waiting.popleft())
            clock.stepped(metrics)
            logs.collect(number, metrics)
            saves = config.checkpoint_every and number % config.checkpoint_every == 0
            if saves or number % config.log_every == 0:
                check_finite(logs.write(clock.progress(number)), objective, now, frozen, key)
            if saves:
                checkpoints.save(number, now, clock.progress(number))
            if 'previews' in config and config.previews.every and number % config.previews.every == 0:
                preview(number, now)
            if jax.process_count() == 1 or number % config.log_every == 0:  # asking the other processes takes time
                stop = processes.any_of(stopping.told())
        check_finite(logs.write(clock.progress(number)), objective, now, frozen, key)
        if stop or config.checkpoint_every:
            checkpoints.save(number, now, clock.progress(number))
        checkpoints.close()
        if stop:
            return 'stopped'

        networks, model = finished(now)
        if processes.is_first():
            save(workdir / 'weights', model, networks, tokenizer=tokenizer if 'text' in networks else None)
            _summarise(workdir, config, command, number, time.monotonic() - began, logs)
        logs.say(f'{config.stage}: {number} steps in {time.monotonic() - began:.0f} s')
    return 'finished'


def _check_origin(file, origin, latest):
    """Writes what a new run starts from to `file`; raises ValueError if a resumed run would use other networks.

    This can happen if the stage before has finished another run since. latest: step of the newest checkpoint, or None.
    """
    if latest is None:
        if processes.is_first():
            write_bytes(file, f'{origin}\n'.encode())
    elif file.is_file() and (before := file.read_text('utf-8').strip()) != origin:
        raise ValueError(
            f'the run of {file.parent} started from {before}, but would now use {origin}: pass what it '
            'started from as --from, or choose another --workdir'
        )


def _restore_or_create(checkpoints, trained, optimizer, places, say):
    create = partial(state.create, optimizer=optimizer)
    if checkpoints.latest() is None:
        born = jax.jit(create, out_shardings=places, donate_argnums=0)
        return born(sharding.place(trained, places.params)), 0.0
    shapes = jax.eval_shape(create, trained)
    return checkpoints.restore(abstract(shapes, places), say)


def _summarise(workdir, config, command, steps, seconds, logs):
    """Writes summary.json, from which the pages about a run are written."""
    summary = {
        'stage': config.stage,
        'command': command,
        'date': datetime.date.today().isoformat(),
        'devices': len(jax.devices()),
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
        'steps': steps,
        'batch_size': config.batch_size,
        'seconds': round(seconds, 1),
        'last': logs.last,
        'config': json.loads(config.to_json_best_effort()),
    }
    write_bytes(workdir / 'summary.json', (json.dumps(summary, indent=2) + '\n').encode())
