"""`st2v train --config <stage>[:size]`: one stage of the model, from the weights of the one before."""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from st2v_jax import stopping
from st2v_jax.cli import options
from st2v_jax.cli.run import Run
from st2v_jax.errors import Failed
from st2v_jax.storage.buckets import located

DESCRIPTION = 'Trains one stage of StreamingT2V.'
EPILOG = """\
the stages, each started from the weights of the one before:
  {run} --config autoencoder:small --workdir runs/autoencoder
  {run} --config clip:small --workdir runs/clip --from runs/autoencoder/weights
  {run} --config video_ldm:small --workdir runs/video_ldm --from runs/clip/weights
  {run} --config cam:small --workdir runs/cam --from runs/video_ldm/weights
  {run} --config apm:small --workdir runs/apm --from runs/cam/weights
  {run} --config refiner_vae:small --workdir runs/refiner_vae --from runs/apm/weights
  {run} --config refiner:small --workdir runs/refiner --from runs/refiner_vae/weights

The ablations of CAM and APM are the stages no_apm, add_cond and conc_cond. They start from the weights of video_ldm.

The size comes after the colon: small is the model that ships with the package, tiny runs on a CPU in seconds, and full,
the default, is the size of the released model.

--config takes the name of a file in configs/, such as cam for configs/cam.py, or the path of any config file. Each key
of a config can be set on the command line:
  --config.steps=2000 --config.schedule.peak=3e-4

To resume a run from its newest checkpoint, repeat the command.

FOLDER, WEIGHTS and --config.data.source may be in a bucket: gs://bucket/runs/cam.
"""


def work(arguments: Namespace, run: Run) -> None:
    """Checks the arguments, trains and reports."""
    from st2v_jax.training.config_files import load_config

    config, name = load_config(arguments.config, arguments.overrides)
    workdir = arguments.workdir or Path('runs', name)
    from st2v_jax.training import loop  # imported late, so that mistakes in the arguments are reported at once

    run.target, run.written = workdir, f'checkpoints stay in {workdir}'
    run.lower = ('a smaller --config.batch_size', '--config.data.scenes', '--config.data.columns')
    outcome = loop.train(config, workdir, arguments.source, command=run.again)
    if outcome == 'stopped':
        stopping.check()
        raise Failed(f'another process of this run was stopped; {run.left}')
    print(f'trained weights: {workdir / "weights"}')


def _place(text):
    try:
        return located(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def parser(prog: str) -> options.Parser:
    """The parser of the verb; prog is how the user called it."""
    parser = options.ConfigParser(
        prog, DESCRIPTION, epilog=EPILOG.format(run=prog), usage=f'{prog} --config NAME[:SIZE] [options]'
    )
    add = parser.add_argument
    add('--config', required=True, metavar='NAME[:SIZE]', help='a stage, or a Python file with get_config(size)')
    add('--workdir', type=_place, metavar='FOLDER', help='for checkpoints, logs and weights (default: runs/NAME-SIZE)')
    add(
        '--from',
        dest='source',
        type=_place,
        metavar='WEIGHTS',
        help='weights to start from (default: the sources of the config)',
    )
    return parser
