"""Vector instructions for numba: distances of one query to a block of 32 vectors at once.

A block stores its vectors *dimension first*, so that one vector register holds the same
dimension of many vectors and no sum across a register is ever needed:

    codes    int8     [D/2, 32, 2]   two dimensions of 32 vectors, then the next two, ...
    centres  float32  [D, 32]

The functions are written as LLVM vector code because numba has no way to say this in Python;
LLVM lowers it to whatever the machine has (AVX-512, AVX2, SSE2, NEON), and for int8 to the
multiply-and-add-pairs instruction. The integer result is the same on every machine.
Addresses are plain integers (`array.ctypes.data`); bounds are the caller's business.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 32

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()
_SIGNATURES = {
    "int8": types.int64(types.uintp, types.uintp, types.int64, types.uintp, types.int32),
    "float32": types.int64(types.uintp, types.uintp, types.int64, types.uintp, types.float32),
}


def _splat(builder, scalar, lanes):
    """A vector with `lanes` copies of a scalar."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    )


def _sum_loop(builder, count, zero, term):
    """acc = zero; for k in range(count): acc = term(k, acc). `count` must be positive."""
    before = builder.block
    loop = builder.function.append_basic_block("scan")
    done = builder.function.append_basic_block("scan.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, acc = builder.phi(_I64), builder.phi(zero.type)
    k.add_incoming(ir.Constant(_I64, 0), before)
    acc.add_incoming(zero, before)
    total = term(k, acc)
    following = builder.add(k, ir.Constant(_I64, 1))
    k.add_incoming(following, loop)
    acc.add_incoming(total, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    return total


@intrinsic
def scan_codes(typingctx, query, codes, pairs, out, limit):
    """Squared distances of one int16 query [2*pairs] to 32 int8 vectors, as int32 [32] at `out`.

    Returns a 32-bit mask of the vectors whose squared distance is below `limit`. The caller
    bounds the query so that 2*pairs*(max|query|+127)**2 < 2**31.
    """

    def codegen(context, builder, signature, args):
        query, codes, pairs, out, limit = args
        sums, wide = ir.VectorType(_I32, LANES), ir.VectorType(_I32, 2 * LANES)
        query = builder.inttoptr(query, _I32.as_pointer())
        codes = builder.inttoptr(codes, ir.VectorType(_I8, 2 * LANES).as_pointer())
        even, odd = (ir.Constant(sums, list(range(first, 2 * LANES, 2))) for first in (0, 1))

        def term(k, acc):
            code = builder.load(builder.gep(codes, [k]), align=1)
            code = builder.sext(code, ir.VectorType(_I16, 2 * LANES))
            pair = builder.load(builder.gep(query, [k]), align=1)
            pair = builder.bitcast(_splat(builder, pair, LANES), code.type)
            gap = builder.sext(builder.sub(code, pair), wide)
            square = builder.mul(gap, gap)
            nothing = ir.Constant(wide, ir.Undefined)
            # this very shape is what LLVM knows as "multiply and add pairs"
            both = builder.add(
                builder.shuffle_vector(square, nothing, even),
                builder.shuffle_vector(square, nothing, odd),
            )
            return builder.add(acc, both)

        total = _sum_loop(builder, pairs, ir.Constant(sums, [0] * LANES), term)
        builder.store(total, builder.inttoptr(out, sums.as_pointer()), align=1)
        below = builder.icmp_signed("<", total, _splat(builder, limit, LANES))
        return builder.zext(builder.bitcast(below, _I32), _I64)

    return _SIGNATURES["int8"], codegen


@intrinsic
def scan_centres(typingctx, query, centres, dims, out, limit):
    """Squared distances of one float32 query [dims] to 32 float32 vectors, to `out` [32].

    Returns a 32-bit mask of the vectors whose squared distance is below `limit`.
    """

    def codegen(context, builder, signature, args):
        query, centres, dims, out, limit = args
        row = ir.VectorType(_F32, LANES)
        query = builder.inttoptr(query, _F32.as_pointer())
        centres = builder.inttoptr(centres, row.as_pointer())

        def term(k, acc):
            centre = builder.load(builder.gep(centres, [k]), align=4)
            value = _splat(builder, builder.load(builder.gep(query, [k]), align=4), LANES)
            gap = builder.fsub(centre, value)
            square = builder.fmul(gap, gap, flags=["contract"])
            return builder.fadd(acc, square, flags=["contract"])

        total = _sum_loop(builder, dims, ir.Constant(row, [0.0] * LANES), term)
        builder.store(total, builder.inttoptr(out, row.as_pointer()), align=4)
        below = builder.fcmp_ordered("<", total, _splat(builder, limit, LANES))
        return builder.zext(builder.bitcast(below, _I32), _I64)

    return _SIGNATURES["float32"], codegen


@intrinsic
def lowest_bit(typingctx, mask):
    """Number of the lowest set bit of a non-zero int64."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at `address`; never faults."""

    def codegen(context, builder, signature, args):
        pointer = _I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read_keep_data = [ir.Constant(_I32, value) for value in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(args[0], pointer), *read_keep_data])
        return context.get_dummy_value()

    return types.void(types.uintp), codegen
