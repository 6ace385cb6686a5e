"""``python -m bayesens`` is the command ``bayesens``."""

from bayesens.cli import main

if __name__ == "__main__":
    main()
