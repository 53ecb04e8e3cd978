"""The models that SGLang shall know at once (``SGLANG_EXTERNAL_MODEL_PACKAGE``): one module for each."""
