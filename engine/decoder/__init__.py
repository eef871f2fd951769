"""The language model: its checkpoint, its prompt and its steps. Knows neither requests nor scheduling."""
