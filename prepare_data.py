"""Clips to train on from a folder of videos and their captions: `python prepare_data.py --help`."""

from st2v_jax.cli.prepare_data import main

if __name__ == '__main__':
    raise SystemExit(main())
