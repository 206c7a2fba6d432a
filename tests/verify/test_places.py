from mpq.export.stored.base import Place
from mpq.records.fingerprint import Fingerprint, LayerFingerprint
from mpq.verify.places import places_of
from tests.small import schemes


def test_each_layer_has_its_place_scheme_and_matrix_in_the_order_of_the_model() -> None:
    layers = {"b": LayerFingerprint("b.weight", "int8", [2, 3]), "a": LayerFingerprint("x", "int4-g32", [4, 64])}
    facts = Fingerprint(
        mpq_fingerprint=1, target="onnx", tolerance=0.1, inputs=[], names=[], outputs=[], layers=layers, tensors={}, ties={}
    )
    int8, int4 = schemes("int8", "int4-g32")
    assert places_of(facts) == [Place("b.weight", int8, (2, 3)), Place("x", int4, (4, 64))]
