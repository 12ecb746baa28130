"""Train one stage: `python train.py --help`; the same as `st2v train`."""

import sys

from st2v_jax.cli.run import main

if __name__ == '__main__':
    raise SystemExit(main(['train', *sys.argv[1:]]))
