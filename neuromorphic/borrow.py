"""Arrays that numba does not count references to, inside one kernel call.

numba counts references atomically at each slice, which costs more than adding a row of weights.
`borrow(array)` is the same array without an owner: it must not outlive the call it is made in,
and its slices inherit that.
"""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


@intrinsic
def borrow(typing_context, array):
    """The array itself, unowned. Only for the lifetime of the caller's own reference."""
    if not isinstance(array, types.Array):
        return None

    def codegen(context, builder, signature, arguments):
        view = make_array(array)(context, builder, value=arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), codegen
