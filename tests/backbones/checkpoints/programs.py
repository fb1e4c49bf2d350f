"""Programs that a file would have run, and the files that they hide in."""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable
from pathlib import Path

from tests.backbones.checkpoints.handmade import (
    NONE,
    array,
    call,
    dic,
    done,
    legacy,
    legacy_storage,
    lst,
    name,
    number,
    raw,
    stack_name,
    swap,
    tensor,
    text,
    torch_zip,
    tup,
)
from tests.backbones.checkpoints.watched import EXTENSION


def payloads(proof: Path) -> dict[str, bytes]:
    """Pickle programs that create the file of proof when pickle.load() runs them."""
    command, script = text(f"touch {proof}"), f"open({str(proof)!r}, 'w').close()"
    words = lst(text("touch"), text(str(proof)))
    system, evil = name("os.system"), name("featkit_canary.Evil")
    load = call(name("importlib.import_module"), text("os"))
    compiled = marshal.dumps(compile(script, "<hostile>", "exec"))
    path = call(name("pathlib.PosixPath"), text(str(proof)))
    simple = {
        "os.system": (command,),
        "posix.system": (command,),
        "os.popen": (command,),
        "subprocess.Popen": (words,),
        "subprocess.check_output": (words,),
        "subprocess.getoutput": (command,),
        "builtins.eval": (text(script),),
        "builtins.exec": (text(script),),
        "__builtin__.eval": (text(script),),
        "builtins.open": (text(str(proof)), text("w")),
        "io.open": (text(str(proof)), text("w")),
        "_io.FileIO": (text(str(proof)), text("w")),
        "builtins.__import__": (text("featkit_canary"),),
        "importlib.import_module": (text("featkit_canary"),),
        "runpy.run_module": (text("featkit_canary"),),
        "timeit.timeit": (text(script), text("pass"), name("time.time"), number(1)),
        "cProfile.run": (text(script),),
        "pydoc.pipepager": (text("x"), command),
        "pickle.loads": (raw(done(call(system, command))),),
        "torch.storage._load_from_bytes": (raw(legacy(swap(3, call(system, command)))),),
    }
    return {function: call(name(function), *args) for function, args in simple.items()} | {
        "getattr": call(call(name("builtins.getattr"), load, text("system")), command),
        "attrgetter": call(call(name("operator.attrgetter"), text("system")), load)
        + tup(command)
        + b"R",
        "methodcaller": call(call(name("operator.methodcaller"), text("system"), command), load),
        "itemgetter": call(
            call(
                call(name("operator.itemgetter"), text("system")), call(name("builtins.vars"), load)
            ),
            command,
        ),
        "FunctionType and marshal": call(
            call(name("types.FunctionType"), call(name("marshal.loads"), raw(compiled)), b"}")
        ),
        "partial": call(call(name("functools.partial"), system, command)),
        "map": call(name("builtins.list"), call(name("builtins.map"), system, lst(command))),
        "reduce": call(name("functools.reduce"), system, lst(), command)
        + b"0"
        + call(name("functools.reduce"), name("builtins.getattr"), lst(load, text("system")))
        + tup(command)
        + b"R",
        "ctypes": call(
            call(name("builtins.getattr"), call(name("ctypes.CDLL"), NONE), text("system")),
            raw(f"touch {proof}".encode()),
        ),
        "method by a dotted name": b"\x80\x04"
        + call(stack_name(text("pathlib"), text("Path.touch")), path),
        "function by a dotted name": b"\x80\x04"
        + call(stack_name(text("os"), text("path.os.system")), command),
        "import by GLOBAL": name("featkit_canary.nothing"),
        "import by STACK_GLOBAL": stack_name(text("featkit_canary"), text("Evil")),
        "copyreg._reconstructor": call(
            name("copyreg._reconstructor"), evil, name("builtins.object"), NONE
        ),
        "copyreg.__newobj__": call(name("copyreg.__newobj__"), evil),
        "NEWOBJ": evil + b")\x81",
        "NEWOBJ_EX": evil + b")}\x92",
        "BUILD": evil + b")\x81" + dic(a=number(1)) + b"b",
        "INST": b"(" + command + b"ios\nsystem\n",
        "OBJ": b"(" + system + command + b"o",
        "EXT1": call(b"\x82" + bytes([EXTENSION]), command),
        "EXT2": call(b"\x83" + struct.pack("<H", EXTENSION), command),
        "EXT4": call(b"\x84" + struct.pack("<i", EXTENSION), command),
        "protocol 0": b"cos\nsystem\n(S'touch " + str(proof).encode() + b"'\ntR",
        "a key": b"}" + call(system, command) + NONE + b"s",
        "an element": lst(call(system, command)),
        "a persistent id": call(system, command) + b"Q",
        "an argument of a tensor": call(
            name("torch._utils._rebuild_tensor_v2"), call(system, command)
        ),
        "popped": call(system, command) + b"0N",
    }


PAYLOADS = tuple(payloads(Path("proof")))

UNTRIED = {
    "webbrowser.open": (text("file:///proof"),),
    "pty.spawn": (text("sh"),),
    "numpy.load": (text("x.npy"), NONE, b"\x88"),
    "torch.load": (text("x.pt"),),
    "torch.hub.load": (text("a/b"), text("c")),
    "torch.jit.load": (text("x.pt"),),
    "torch.package.PackageImporter": (text("x.pt"),),
    "torch.utils.cpp_extension.load": (text("x"), lst(text("x.cpp"))),
    "torch._C._jit_set_profiling_executor": (b"\x88",),
    "torch._C._cuda_init": (),
    "torch._inductor.codecache.PyCodeCache.load": (text("x"),),
    "torch._dynamo.nothing": (),
    "torch.onnx.export": (),
    "joblib.load": (text("x"),),
    "pandas.read_pickle": (text("x"),),
    "os._exit": (number(0),),
    "os.abort": (),
    "sys.exit": (number(0),),
    "builtins.breakpoint": (),
    "builtins.input": (),
    "shutil.rmtree": (text("x"),),
    "socket.create_connection": (tup(text("localhost"), number(9)),),
    "time.sleep": (number(100),),
}
"""What would do harm, or nothing that can be seen, if it were tried in a test."""

CONTAINERS: dict[str, tuple[Callable[[bytes], bytes], list[str] | None]] = {
    "pickle": (lambda code: done(dic(a=array(), x=code)), ["a"]),
    "zip": (lambda code: torch_zip(dic(w=tensor(), x=code)), ["w"]),
    "magic": (lambda code: legacy(swap(0, code)), []),
    "version": (lambda code: legacy(swap(1, code)), ["w"]),
    "system": (lambda code: legacy(swap(2, code)), None),
    "object": (
        lambda code: legacy(swap(3, dic(w=tensor(store=legacy_storage()), x=code))),
        ["w"],
    ),
    "keys": (lambda code: legacy(swap(4, code)), None),
}
"""Where code can hide, and which tensors are there all the same; None where the file is refused."""
