"""``python -m pipeline.entrypoints.cli``: the same as ``audit-trail``."""

from pipeline.entrypoints.cli.main import main

if __name__ == "__main__":
    main()
