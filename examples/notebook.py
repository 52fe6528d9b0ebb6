"""kdbench from Python: run a suite, look at the frame, use one method in a loop of your own."""

import torch

import kdbench

results = kdbench.run_suite("examples/suite.yaml", plugins=["examples/cosine.py"], results="results/example", seeds=[0])
print(results.groupby(["student", "method"])["test_error_pct"].mean())

teacher = kdbench.build_model("resnet20", num_classes=10, in_channels=3).eval()
student = kdbench.build_model("resnet8", num_classes=10, in_channels=3)
images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
with torch.no_grad():
    target = teacher(images)
output = student(images)
method = kdbench.build_method("at+kd", student=output, teacher=target, at={"beta": 500.0})
batch = kdbench.Batch(images, labels, torch.arange(16), epoch=0, epochs=1, generator=torch.Generator())
terms = method.losses(output, target, batch)
loss = sum(terms.values()) + method.ce_weight * torch.nn.functional.cross_entropy(method.predict(output), labels)
loss.backward()
print({name: round(term.item(), 3) for name, term in terms.items()})
