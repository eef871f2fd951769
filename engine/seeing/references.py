"""What any picture might show: descriptions against which a match is judged, written for this project.

A score alone says little: some pictures score high with everything, and every training run has its own scale. How far a
description stands out among these tells more, whatever the weights.
"""

REFERENCES = (
    "a dog", "a cat", "a bird", "a horse", "a car", "a train", "an airplane", "a boat", "a bicycle", "a bus",
    "a house", "a bridge", "a chair", "a table", "a lamp", "a clock", "a telephone", "a computer", "a book",
    "a guitar", "a flower", "a tree", "a fruit", "a pizza", "a cake", "a bottle", "a shoe", "a shirt", "a hat",
    "a face", "a man riding a wave on a surfboard", "a group of people around a table with food",
    "a woman playing tennis", "a kitchen with a stove and a sink", "a street with cars and traffic lights",
    "a child with a toy on a bed", "a herd of animals in a field", "a person skiing down a mountain",
    "a room with a sofa and a television", "a bathroom with a toilet", "a plate of food on a table",
    "a beach with people and umbrellas", "a football match", "a train at a station", "a plane on a runway",
    "a statue in a park", "a drawing of something", "some writing on a sign",
)  # fmt: skip
