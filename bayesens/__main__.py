"""``python -m bayesens`` is the command ``bayesens``."""

from bayesens.app.cli.main import main

if __name__ == "__main__":
    main()
