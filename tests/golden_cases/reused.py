"""What RepDistiller calls FT, and SimKD."""

from golden_numbers import Golden, batch_of, case, method, pair_of, total


@case("ft_repdistiller")
def _ft_repdistiller(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    ft = method("ft_repdistiller", pair_of(student, teacher), k=0.5, beta=1)
    theirs = {  # RepDistiller's paraphraser has a place for the batch norm that it leaves out; our layers do not
        "paraphraser.encoder": (ft.encoder, {0: 0, 3: 2, 6: 4}),
        "paraphraser.decoder": (ft.decoder, {0: 0, 3: 2, 6: 4}),
        "translator.encoder": (ft.translator, {i: i for i in (0, 1, 3, 4, 6, 7)}),
    }
    golden.load(
        {
            f"{key}.{i}.{kind}": getattr(layers[place], kind)
            for key, (layers, places) in theirs.items()
            for i, place in places.items()
            for kind in ("weight", "bias")
        }
    )
    loss = total(ft.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
    reconstruction = total(ft.stages()[0].losses(teacher, teacher, batch_of()))
    golden.agrees("reconstruction.loss", reconstruction)
    golden.gradients_agree(reconstruction, {f"grad.reconstruction.{leaf}": leaf for leaf in golden.leaves if "paraphraser" in leaf})


@case("simkd")
def _simkd(golden: Golden) -> None:
    student, teacher = golden.outputs("student"), golden.outputs("teacher")
    parts = {f"classifier_{kind}": golden.tensors[f"teacher.classifier.{kind}"] for kind in ("weight", "bias")}
    simkd = method("simkd", pair_of(student, teacher, **parts), beta=1, factor=2)
    golden.load({f"transfer.{key}": parameter for key, parameter in simkd.projector.named_parameters()})
    loss = total(simkd.losses(student, teacher, batch_of()))
    golden.agrees("loss", loss)
    golden.gradients_agree(loss)
    golden.agrees("prediction", simkd.predict(student))
