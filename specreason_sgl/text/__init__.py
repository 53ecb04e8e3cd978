"""Pure functions over text: prompts, chat templates, thinking formats, steps, answers and utility scores."""
