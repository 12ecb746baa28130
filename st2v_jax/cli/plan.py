"""`st2v plan --target v5e:2x4 --for train`: what a program takes on a TPU, by TPU's compiler, without a TPU."""

import dataclasses
import datetime
import json
import os
from argparse import Namespace
from pathlib import Path

from st2v_jax import stopping
from st2v_jax.cli import options
from st2v_jax.cli.run import Run, require
from st2v_jax.errors import BadInput
from st2v_jax.storage.atomic import write_bytes

DESCRIPTION = """\
Compiles the programs of a verb for a TPU, on a machine that has none, and prints what they take on each chip: memory,
what the chips exchange, and the time to compile. It needs no weights, only the config of a model. What does not fit is
named together with an option that helps.

A target is a kind of chip (v4, v5e, v5p, v6e) and how many there are in each direction. sample runs on one of them,
enhance spreads chunks over all of them (--devices), train has a mesh (--config.mesh.fsdp=8).

At the size full a program takes 10 minutes or more and 10 GB of memory or more to compile.
"""
EPILOG = """\
examples:
  {run} --target v5e:2x4 --for sample --config cam:small
  {run} --target v5p:2x2x1 --for enhance --config cam:small --parts step
  {run} --target v5e:4x4 --for train --config cam:small --config.mesh.fsdp=8
"""
# libtpu reads these when it is loaded. Without them it asks the network which TPU this machine is, and waits.
ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu',
    'JAX_ENABLE_COMPILATION_CACHE': 'false',  # or the time to compile would be that of reading a file
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
PARTS = {
    'sample': ('prompt', 'condition', 'step', 'decoding', 'memory'),
    'enhance': ('prompt', 'encoding', 'step', 'decoding'),
    'train': ('step',),
}
DECODED = ('encoding', 'decoding')  # the parts that --decode-frames makes smaller


def work(arguments: Namespace, run: Run) -> None:
    """Checks the arguments, compiles, prints, and stores the numbers after each program."""
    parts = _parts(arguments)
    require('tpu', 'libtpu')
    os.environ |= ENVIRONMENT
    from st2v_jax import devices
    from st2v_jax.planning import tpu
    from st2v_jax.training.config_files import load_config

    config, name = load_config(arguments.config, arguments.overrides)
    target = tpu.target(arguments.target)
    report = _Report(arguments, run, target, name)
    with devices.compiling_for(target.chips[0]):
        if arguments.purpose == 'train':
            _train(config, target, report)
        else:
            _video(config, target, arguments, parts, report)


def _parts(arguments):
    known = PARTS[arguments.purpose]
    chosen = known if arguments.parts is None else arguments.parts.split(',')
    if wrong := sorted(set(chosen) - set(known)):
        raise BadInput(f'{arguments.purpose} has the parts {", ".join(known)}, not {", ".join(wrong)}')
    if arguments.purpose == 'train' and arguments.weights is not None:
        raise BadInput('a training step is planned from its config: leave out --weights')
    return chosen


class _Report:
    """What has been found so far: on the screen and, with --json, in a file."""

    def __init__(self, arguments, run, target, name):
        from importlib.metadata import version

        import jax

        self._file, self._run = arguments.json, run
        self.found = {
            'date': datetime.date.today().isoformat(),
            'command': run.again,
            'jax': jax.__version__,
            'libtpu': version('libtpu'),
            'target': arguments.target,
            'for': arguments.purpose,
            'model': arguments.weights or name,
            'chips': len(target.chips),
            'memory': target.memory,
            'programs': [],
        }

    def head(self):
        """Prints the head of the table."""
        _say(
            f'{"program":<24} {"total":>7} {"arguments":>9} {"outputs":>7} {"temporary":>9}  {"fits":<4} '
            f'{"compiled":>8}  GiB exchanged'
        )

    def add(self, name, compiled, remedies=()):
        """Adds a program, and options that make it fit."""
        from st2v_jax.planning.tpu import GIB, MEMORY

        numbers = {'name': name, **dataclasses.asdict(compiled)}
        exchanged = compiled.collectives or {}
        numbers['collectives'] = {kind: sums._asdict() for kind, sums in exchanged.items()}
        moved = [f'{kind} {_gib(sums.bytes)} in {sums.count}' for kind, sums in exchanged.items()]
        _say(
            f'{name:<24} {_gib(compiled.total):>7} {_gib(compiled.arguments):>9} {_gib(compiled.outputs):>7} '
            f'{_gib(compiled.temporary):>9}  {"yes" if compiled.fits else "no":<4} {compiled.seconds:>6.0f} s  '
            f'{", ".join(moved) or "none"}'
        )
        if not compiled.fits:
            larger = [kind for kind, memory in MEMORY.items() if memory * GIB >= compiled.total]
            numbers['helps'] = ' '.join(remedies) or (
                f'a chip of {" or ".join(larger)}' if larger else 'a smaller model'
            )
            _say(f'  wants {_gib(compiled.total)} of {_gib(self.found["memory"])} GiB; what helps: {numbers["helps"]}')
        self.found['programs'].append(numbers)
        if self._file is not None:
            write_bytes(self._file, (json.dumps(self.found, indent=2) + '\n').encode())
            self._run.written = f'{len(self.found["programs"])} programs are in {self._file}'


def _gib(size):
    return '-' if size is None else f'{size / 2**30:.4g}'


def _say(line):
    print(line, flush=True)


def _train(config, target, report):
    from st2v_jax.planning import tpu
    from st2v_jax.training import planned

    config.compiler_options = {}  # those of the size tiny are for a CPU
    step = planned.planned_step(config, target.chips)
    held, mesh = planned.held(step), dict(step.key.sharding.mesh.shape)
    report.found['mesh'], report.found['held'] = mesh, held
    report.found['batch'] = {'size': config.batch_size, 'accumulation': config.accumulation, 'remat': config.remat}
    listed = ', '.join(f'{name} {_gib(size)}' for name, size in held.items())
    _say(f'a chip holds between steps, GiB: {listed}; mesh {" x ".join(f"{axis} {n}" for axis, n in mesh.items())}')
    report.head()
    compiled = tpu.compiled(step.lower())
    remedies = () if compiled.fits else planned.remedies(config, target.chips, compiled.total, target.memory)
    report.add('step', compiled, remedies)


def _video(config, target, arguments, parts, report):
    from st2v_jax.planning import tpu

    programs, place = _programs(config, target, arguments, arguments.decode_frames)
    if arguments.purpose == 'sample' and len(target.chips) > 1:
        _say(f'sample runs on one of the {len(target.chips)} chips')
    report.head()
    for number, program in enumerate(programs):
        if program.part not in parts:
            continue
        stopping.check()
        compiled, remedies = tpu.compiled(tpu.lowered(program, place)), ()
        if not compiled.fits and program.part in DECODED and arguments.decode_frames > 1:
            fewer, _ = _programs(config, target, arguments, 1)
            if tpu.compiled(tpu.lowered(fewer[number], place)).fits:
                remedies = ('--decode-frames 1',)
        report.add(program.name, compiled, remedies)


def _programs(config, target, arguments, decode_frames):
    """The programs of sample or enhance, and where their arrays are."""
    from st2v_jax import sharding
    from st2v_jax.devices import default_dtype
    from st2v_jax.models.build import ModelConfig
    from st2v_jax.models.system import system
    from st2v_jax.open_model import open_model
    from st2v_jax.planning import programs, tpu
    from st2v_jax.planning.video import held
    from st2v_jax.refinement.enhancer import enhancer_of
    from st2v_jax.streaming.generate import Model
    from st2v_jax.weights import layout

    opened = None if arguments.weights is None else open_model(arguments.weights)
    model = ModelConfig.from_dict(config.model.to_dict()) if opened is None else opened.config
    dtype = default_dtype()
    if arguments.purpose == 'sample':
        networks = layout.streaming(model) if opened is None else opened.networks
        whole = Model(model, None, held(model, networks, dtype), system(model, dtype))
        settings = whole.settings(decode_frames=decode_frames)
        frames = int(min(arguments.num_frames, whole.max_frames))
        return programs.streaming(whole, settings, frames), tpu.on_one_chip(target)
    networks = tuple(layout.refinement(model).values()) if opened is None else opened.refinement
    mesh = sharding.make_mesh({sharding.DATA: -1}, target.chips) if len(target.chips) > 1 else None
    enhancer = enhancer_of(model, held(model, networks, dtype), dtype, mesh=mesh)
    settings = enhancer.settings(variant=model.profile)
    size = arguments.frame_size or model.frame_size
    found = programs.refinement(
        enhancer, settings, size, arguments.num_frames, profile=model.profile, decode_frames=decode_frames
    )
    return found, tpu.on_one_chip(target) if mesh is None else sharding.replicated(mesh)


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    usage = f'{prog} --target CHIPS --for VERB [options]'
    parser = options.ConfigParser(prog, DESCRIPTION, epilog=EPILOG.format(run=prog), usage=usage)
    add = parser.add_argument
    add('--target', required=True, metavar='CHIPS', help='such as v5e:2x4, v6e:4x4, v5p:2x2x1 or v4:2x2x1')
    add('--for', dest='purpose', required=True, choices=tuple(PARTS), help='the verb that would run there')
    add(
        '--config',
        default='cam',
        metavar='NAME[:SIZE]',
        help='the stage to train, or one with the model to sample (default: cam, at full size). As for train, each '
        'key can be set, such as --config.batch_size=64',
    )
    add('--weights', metavar='FOLDER', help='the model to sample with or to enhance with, instead of that of a config')
    add('--parts', metavar='LIST', help='only these parts, such as step,decoding (default: all)')
    add(
        '--num-frames',
        type=options.at_least_1,
        default=240,
        metavar='N',
        help='length of the video in frames (default: 240)',
    )
    add(
        '--frame-size',
        type=options.frame_size,
        metavar='HxW',
        help='of the video to enhance (default: that of the model)',
    )
    add(
        '--decode-frames',
        type=options.at_least_1,
        default=4,
        metavar='N',
        help='frames encoded or decoded at once (default: 4)',
    )
    add('--json', type=Path, metavar='FILE', help='file for the numbers, of which docs/tpu.md is made')
    return parser
