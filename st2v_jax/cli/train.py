"""`st2v train --config <stage>[:size]`: one stage of the model, from the weights of the one before."""

import re
from pathlib import Path

from st2v_jax.cli import options

EPILOG = """\
The stages, each from the weights of the one before:
  {run} --config autoencoder:small --workdir runs/autoencoder
  {run} --config clip:small --workdir runs/clip --from runs/autoencoder/weights
  {run} --config video_ldm:small --workdir runs/video_ldm --from runs/clip/weights
  {run} --config cam:small --workdir runs/cam --from runs/video_ldm/weights
  {run} --config apm:small --workdir runs/apm --from runs/cam/weights
  {run} --config refiner_vae:small --workdir runs/refiner_vae --from runs/apm/weights
  {run} --config refiner:small --workdir runs/refiner --from runs/refiner_vae/weights
Ablations of CAM and APM, from the weights of video_ldm: no_apm, add_cond, conc_cond.
A stage is a file of configs/, such as configs/cam.py, which may be named by its path too; so may one of your own.
Sizes: none is the released model, :small the one that ships, :tiny runs on a CPU in seconds.
Any key of the config can be set: --config.steps=2000 --config.schedule.peak=3e-4
The same command again resumes from the newest checkpoint in the workdir.
"""


def work(arguments, run):
    """Checks, trains, reports."""
    from st2v_jax.training.config_files import load_config

    config, name = load_config(arguments.config, arguments.overrides)
    workdir = arguments.workdir or Path('runs', name)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f'--workdir {workdir} is a file, not a folder')
    from st2v_jax.training import loop  # after the arguments, so that mistakes answer at once

    run.target, run.written = workdir, f'checkpoints stay in {workdir}'
    run.lower = ('--config.batch_size', '--config.data.scenes', '--config.data.columns')
    outcome = loop.train(config, workdir, arguments.source, command=run.again)
    if outcome == 'stopped':
        print(f'stopped and saved; resume with: {run.again}')
    else:
        print(f'trained weights: {workdir / "weights"}')


class _Parser(options.Parser):
    def parse_args(self, argv):
        """Also takes --config.KEY=VALUE for any key, as `overrides`."""
        arguments, rest = self.parse_known_args(argv)
        arguments.overrides = {}
        rest = iter(rest)
        for word in rest:
            found = re.fullmatch(r'--config\.([\w.]+)(?:=(.*))?', word, re.DOTALL)
            if not found:
                self.error(f'unknown option {word}')
            value = found[2] if found[2] is not None else next(rest, None)
            if value is None:
                self.error(f'{word} needs a value')
            arguments.overrides[found[1]] = value
        return arguments


def parser(prog):
    parser = _Parser(prog, 'Train one stage of StreamingT2V.', epilog=EPILOG.format(run=prog))
    add = parser.add_argument
    add('--config', required=True, metavar='NAME[:SIZE]', help='a stage as below, or a file with get_config(size)')
    add('--workdir', type=Path, help='where checkpoints, logs and weights go (default: runs/<config>)')
    add('--from', dest='source', type=Path, metavar='WEIGHTS', help='weights of the stage before')
    return parser
