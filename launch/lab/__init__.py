"""The laboratory: many runs at once, sweeps over grids, and the article's figures, each by one command."""
