"""SGLang's CPU server where its own kernels cannot run: attention, model classes and a stand-in for the kernels."""
