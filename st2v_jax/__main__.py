"""`python -m st2v_jax VERB` is `st2v VERB`."""

from st2v_jax.cli.run import main

if __name__ == '__main__':
    raise SystemExit(main())
