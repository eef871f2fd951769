"""The words in which a caption is asked for: the same in training, in measuring and when somebody uses `/describe`."""

CAPTION_SYSTEM_PROMPT = "You describe pictures. Say in one short sentence what the picture shows."
CAPTION_REQUEST = "Describe this picture."
