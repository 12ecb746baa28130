"""Train one stage: `python train.py --help`."""

from st2v_jax.cli.train import main

if __name__ == '__main__':
    raise SystemExit(main())
