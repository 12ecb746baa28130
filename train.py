"""Train one stage: `python train.py --config configs/<stage>.py`."""

from st2v_jax.cli.train import main

if __name__ == '__main__':
    raise SystemExit(main())
