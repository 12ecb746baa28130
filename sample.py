"""A long video from one prompt: `python sample.py --help`; the same as `st2v sample`."""

import sys

from st2v_jax.cli.run import main

if __name__ == '__main__':
    raise SystemExit(main(['sample', *sys.argv[1:]]))
