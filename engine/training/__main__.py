"""`python -m engine.training`: the same as `commedia train`, where only the engine is installed."""

from engine.training.cli import main

if __name__ == "__main__":
    main()
