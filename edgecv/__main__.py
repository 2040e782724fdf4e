"""Run the command line by `python -m edgecv`."""

from edgecv.cli import main

if __name__ == "__main__":
    main()
