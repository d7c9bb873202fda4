"""``python -m opportune`` is ``opportune``."""

from opportune.cli import main

if __name__ == "__main__":
    main()
