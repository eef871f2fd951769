"""Side-by-side measurements, each one command. Figures are ratios against a peer in the same run."""
