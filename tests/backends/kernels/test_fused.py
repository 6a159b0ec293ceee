"""The fused kernels but attention: run without a GPU."""


def test_in_the_interpreter(interpreter) -> None:
    interpreter("interpreted_fused.py")
