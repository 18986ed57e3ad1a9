"""Kernels called by kernels are linked into them before either is optimised: half the work.

As numba has it, a kernel is optimised and made machine code on its own, with an entry for Python,
and again inside each kernel that calls it, and so on up. Here it stays unfinished code, a part,
until a kernel that Python calls is finished with all of its parts. The results are the same bits.
"""

from typing import Any

from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompilerBase, DefaultPassBuilder
from numba.core.registry import CPUDispatcher
from numba.core.types.misc import unliteral


class _NoMachineCode:
    """For numba, where it tells machine code of the Python environment it runs in."""

    @staticmethod
    def set_env(_name: str, _env: Any) -> None:
        return None


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """Code that is linked into other code, and neither optimised nor run for itself."""

    @property
    def codegen(self) -> Any:
        return _NoMachineCode

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        for function in ll_module.functions:
            if not function.is_declaration:  # numba also prepares to optimise those, at length
                passes, builder = self._codegen._function_pass_manager()
                passes.run(function, builder)

    def _optimize_final_module(self) -> None:
        return None

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _name: str) -> int:
        return 0

    def serialize_using_object_code(self) -> Any:
        return self.serialize_using_bitcode()


class _PartCompiler(CompilerBase):  # type: ignore[misc]
    """numba's own steps, into a :class:`_Part`."""

    def define_pipelines(self) -> list[Any]:
        codegen = self.state.targetctx.codegen()
        self.state.library = _Part(codegen, self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class _PartCache(FunctionCache):  # type: ignore[misc]
    """Parts beside the machine code of the same function."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return *super()._index_key(sig, codegen), "part"


class Kernel(CPUDispatcher):  # type: ignore[misc]
    """Machine code when Python calls it, a part when a kernel does."""

    def __init__(
        self,
        py_func: Any,
        locals: Any = None,
        targetoptions: Any = None,
        pipeline_class: Any = Compiler,
    ) -> None:
        super().__init__(py_func, locals, targetoptions, pipeline_class)
        options = {**(targetoptions or {}), "no_cpython_wrapper": True}
        self.part = CPUDispatcher(py_func, locals, options, _PartCompiler)
        self.part._cache = _PartCache(py_func)
        self.enable_caching()

    def get_call_template(self, args: Any, kws: Any) -> Any:
        # A kernel for every integer that is written out in a call would be one too many.
        plain = tuple(map(unliteral, args))
        return self.part.get_call_template(plain, {k: unliteral(v) for k, v in kws.items()})

    def get_overload(self, sig: Any) -> Any:
        return self.part.get_overload(sig)
