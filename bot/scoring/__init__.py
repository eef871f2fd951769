"""How good a persona is on a model: `commedia persona test`. Owns what is asked, the judges, and their figures."""
