"""What is counted of a network that a method changes for good: the one that a user would run."""

from conftest import CLASSES, Lab

import kdbench


def test_a_record_counts_the_network_that_is_deployed(lab: Lab) -> None:
    """SimKD's projector and the teacher's classifier go with the student; FT's translator is dropped."""
    lab.run(lab.suite(methods=["scratch", "simkd", "ft"], seeds=[0]))
    frame = kdbench.load_results(lab.store.root).query("student == 'resnet8'").set_index("method")
    student, (width, classes) = kdbench.build_model("resnet8", num_classes=CLASSES, in_channels=1), (64, CLASSES)
    own = sum(p.numel() for p in student.parameters())
    middle = width // 2
    projector = width * middle + 9 * middle**2 + middle * width + 2 * (middle + middle + width)
    assert frame["student_params"].to_dict() == {
        "scratch": own,
        "simkd": own + projector + width * classes + classes,
        "ft": own,
    }
    macs = frame["student_macs"]
    at_2x2 = 4 * (width * middle + 9 * middle**2 + middle * width)
    assert macs["ft"] == macs["scratch"]
    assert macs["simkd"] == macs["scratch"] + at_2x2 + width * classes
    assert frame["extra_params"]["simkd"] == 0
    assert frame["extra_params"]["ft"] > 0
