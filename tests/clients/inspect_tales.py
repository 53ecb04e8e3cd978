"""For `inspect eval`: the problems of `tales.jsonl` beside this file."""

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate


@task
def tales() -> Task:
    told = json_dataset("tales.jsonl", FieldSpec(input="problem", target="expected_answer", id="id"))
    return Task(told, solver=generate(), scorer=pattern(r"\\boxed\{([^{}]*)\}"))
