from kdbench import Batch, Losses, Method, Outputs, register


@register("scratch")
class Scratch(Method):
    r"""CE(z_s, y)

    Transfers: nothing (baseline)
    Paper: none; the student without a teacher. Teachers are trained by it too.
    """

    weights = ()

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {}
