"""Sixteen-lane vector operations for the event kernels, as numba intrinsics.

LLVM cannot keep accumulators in registers across a loop when two arrays might overlap, and picks
half-width vectors; these few loops are where the encoder's time goes, so they are spelled out.
LLVM splits the lanes on machines with narrower vectors. Sums run in a fixed order: results do
not depend on anything but the inputs.

All arrays are one-dimensional and C-contiguous; an offset counts elements. `n` is a literal: the
number of vectors held in registers, so that a row is 16 n channels. Nothing checks bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
STEPS = 4  # time steps of a decision: the stacked frames
F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
VF, VI = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
VMASK = ir.VectorType(ir.IntType(1), LANES)


class Emit:
    """The few instructions that the intrinsics below are made of."""

    def __init__(self, context, builder, signature, args) -> None:
        self.context, self.builder = context, builder
        self.types, self.args = signature.args, args

    def data(self, i: int):
        """Data pointer of the i-th argument, an array."""
        return self.context.make_array(self.types[i])(self.context, self.builder, self.args[i]).data

    def index(self, i: int):
        """The i-th argument, an integer, as i64."""
        return self.context.cast(self.builder, self.args[i], self.types[i], types.int64)

    def load(self, pointer, offset, kind=VF):
        at = self.builder.gep(pointer, [offset])
        return self.builder.load(self.builder.bitcast(at, kind.as_pointer()), align=1)

    def store(self, value, pointer, offset) -> None:
        at = self.builder.gep(pointer, [offset])
        self.builder.store(value, self.builder.bitcast(at, value.type.as_pointer()), align=1)

    def splat(self, value, kind=VF):
        zero = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(zero, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, zero, ir.Constant(VI, [0] * LANES))

    def constant(self, value: float):
        return ir.Constant(VF, [ir.Constant(F32, value)] * LANES)

    def fma(self, a, b, c):
        return self.call("llvm.fma.v16f32", VF, a, b, c)

    def call(self, name: str, result, *args):
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(result, [a.type for a in args]), name
        )
        return self.builder.call(function, args)

    def plus(self, offset, elements: int):
        return self.builder.add(offset, ir.Constant(I64, elements))

    def accumulators(self, n: int):
        return [cgutils.alloca_once(self.builder, VF) for _ in range(n)]

    def bits(self, mask):
        """Sixteen booleans as the low bits of a u64."""
        return self.builder.zext(self.builder.bitcast(mask, I16), I64)


def literal(*values) -> bool:
    return all(isinstance(v, types.IntegerLiteral) for v in values)


@intrinsic
def load_u64(typingctx, array, offset):
    """Eight bytes from a uint8 array at any offset."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        return e.load(e.data(0), e.index(1), I64)

    return types.uint64(array, offset), codegen


@intrinsic
def read_row(typingctx, array, offset, out, at):
    """out[at:] = eight bytes of a uint8 array from `offset` on, as floats."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        pixels = e.load(e.data(0), e.index(1), ir.VectorType(ir.IntType(8), 8))
        floats = builder.uitofp(pixels, ir.VectorType(F32, 8))
        e.store(floats, e.data(2), e.index(3))
        return context.get_dummy_value()

    return types.void(array, offset, out, at), codegen


@intrinsic
def popcount(typingctx, word):
    """Number of set bits of a u64."""

    def codegen(context, builder, signature, args):
        return Emit(context, builder, signature, args).call("llvm.ctpop.i64", I64, args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def list_events(typingctx, mask, first, rows, at):
    """rows[at:] = first + positions of the set bits of a u16; 16 entries may be overwritten."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        bits = builder.bitcast(builder.trunc(args[0], I16), VMASK)
        lanes = ir.Constant(VI, list(range(LANES)))
        numbers = builder.add(lanes, e.splat(builder.trunc(e.index(1), I32), VI))
        packed = e.call(
            "llvm.experimental.vector.compress.v16i32", VI, numbers, bits, ir.Constant(VI, None)
        )
        e.store(packed, e.data(2), e.index(3))
        return context.get_dummy_value()

    return types.void(types.uint64, first, rows, at), codegen


@intrinsic
def list_values(typingctx, mask, values, offset, packed, at):
    """packed[at:] = the 16 floats at values[offset:] whose bit is set."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        bits = builder.bitcast(builder.trunc(args[0], I16), VMASK)
        value = e.load(e.data(1), e.index(2))
        out = e.call(
            "llvm.experimental.vector.compress.v16f32", VF, value, bits, ir.Constant(VF, None)
        )
        e.store(out, e.data(3), e.index(4))
        return context.get_dummy_value()

    return types.void(types.uint64, values, offset, packed, at), codegen


@intrinsic
def patch_product(typingctx, x, count, weight, column, width, start, out, offset, n):
    """out[offset:] = start[column:] + sum over i < count of x[i] * weight[i * width + column:]."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        xs, w, wide = e.data(0), e.data(2), e.index(4)
        vectors = n.literal_value
        # Two partial sums a vector: the chain of additions, not their number, would set the pace.
        sums = e.accumulators(2 * vectors)
        for j in range(vectors):
            builder.store(e.load(e.data(5), e.plus(e.index(3), 16 * j)), sums[j])
            builder.store(e.constant(0.0), sums[vectors + j])
        two = ir.Constant(I64, 2)
        pairs = builder.udiv(e.index(1), two)

        def add(i, half: int) -> None:
            value = e.splat(builder.load(builder.gep(xs, [i])))
            row = builder.add(builder.mul(i, wide), e.index(3))
            for j in range(vectors):
                slot = sums[half * vectors + j]
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(e.fma(value, term, builder.load(slot)), slot)

        with cgutils.for_range(builder, pairs, intp=I64) as loop:
            first = builder.mul(loop.index, two)
            add(first, 0)
            add(e.plus(first, 1), 1)
        odd = builder.icmp_unsigned("!=", builder.mul(pairs, two), e.index(1))
        with builder.if_then(odd):
            add(builder.mul(pairs, two), 0)
        for j in range(vectors):
            total = builder.fadd(builder.load(sums[j]), builder.load(sums[vectors + j]))
            e.store(total, e.data(6), e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(x, count, weight, column, width, start, out, offset, n), codegen


@intrinsic
def sum_rows(typingctx, weight, rows, count, column, width, start, out, offset, n):
    """out[offset:] = start[column:] + sum over i < count of weight[rows[i] * width + column:]."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        w, wide = e.data(0), e.index(4)
        sums = e.accumulators(n.literal_value)
        for j, slot in enumerate(sums):
            builder.store(e.load(e.data(5), e.plus(e.index(3), 16 * j)), slot)
        with cgutils.for_range(builder, e.index(2), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, wide), e.index(3))
            for j, slot in enumerate(sums):
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(builder.fadd(builder.load(slot), term), slot)
        for j, slot in enumerate(sums):
            e.store(builder.load(slot), e.data(6), e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(weight, rows, count, column, width, start, out, offset, n), codegen


@intrinsic
def add_scaled_rows(typingctx, weight, rows, scales, count, column, width, out, offset, n):
    """out[offset:] += sum over i < count of scales[i] * weight[rows[i] * width + column:]."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        w, out_data = e.data(0), e.data(6)
        sums = e.accumulators(n.literal_value)
        for j, slot in enumerate(sums):
            builder.store(e.load(out_data, e.plus(e.index(7), 16 * j)), slot)
        with cgutils.for_range(builder, e.index(3), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, e.index(5)), e.index(4))
            scale = e.splat(builder.load(builder.gep(e.data(2), [loop.index])))
            for j, slot in enumerate(sums):
                term = e.load(w, e.plus(row, 16 * j))
                builder.store(e.fma(scale, term, builder.load(slot)), slot)
        for j, slot in enumerate(sums):
            e.store(builder.load(slot), out_data, e.plus(e.index(7), 16 * j))
        return context.get_dummy_value()

    return types.void(weight, rows, scales, count, column, width, out, offset, n), codegen


@intrinsic
def add_outer(typingctx, x, count, value, offset, grad, column, width, n):
    """grad[i * width + column:] += x[i] * value[offset:] for every i < count."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        g = e.data(4)
        terms = [e.load(e.data(2), e.plus(e.index(3), 16 * j)) for j in range(n.literal_value)]
        with cgutils.for_range(builder, e.index(1), intp=I64) as loop:
            scale = e.splat(builder.load(builder.gep(e.data(0), [loop.index])))
            row = builder.add(builder.mul(loop.index, e.index(6)), e.index(5))
            for j, term in enumerate(terms):
                at = e.plus(row, 16 * j)
                e.store(e.fma(scale, term, e.load(g, at)), g, at)
        return context.get_dummy_value()

    return types.void(x, count, value, offset, grad, column, width, n), codegen


@intrinsic
def list_patterns(typingctx, m0, m1, m2, m3, first, rows, patterns, at):
    """List the channels that spike in any of four steps, with the steps as a number 1 to 15.

    m0..m3: spikes of 16 channels in each step, as bits. rows[at:] = first + channel, patterns[at:]
    = m0 + 2 m1 + 4 m2 + 8 m3 of that channel. Returns how many; 16 entries may be overwritten.
    """

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        zero = ir.Constant(VI, None)
        steps, some = zero, None
        for t in range(STEPS):
            bits = builder.bitcast(builder.trunc(args[t], I16), VMASK)
            value = ir.Constant(VI, [1 << t] * LANES)
            steps = builder.or_(steps, builder.select(bits, value, zero))
            some = bits if some is None else builder.or_(some, bits)
        lanes = ir.Constant(VI, list(range(LANES)))
        numbers = builder.add(lanes, e.splat(builder.trunc(e.index(4), I32), VI))
        for value, i in ((numbers, 5), (steps, 6)):
            packed = e.call("llvm.experimental.vector.compress.v16i32", VI, value, some, zero)
            e.store(packed, e.data(i), e.index(7))
        return e.call("llvm.ctpop.i64", I64, e.bits(some))

    word = types.uint64
    return types.int64(word, word, word, word, first, rows, patterns, at), codegen


@intrinsic
def pattern_table(typingctx, gradient, column, width, table, n):
    """table[m * 16 n:] = sum of gradient[t * width + column:] over the set bits t of m < 16."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        vectors = n.literal_value
        for j in range(vectors):
            sums = {}
            for m in range(1, 1 << STEPS):
                t = (m & -m).bit_length() - 1
                if m == 1 << t:
                    row = builder.mul(e.index(2), ir.Constant(I64, t))
                    at = e.plus(builder.add(row, e.index(1)), 16 * j)
                    sums[m] = e.load(e.data(0), at)
                else:
                    sums[m] = builder.fadd(sums[m & (m - 1)], sums[1 << t])
                e.store(sums[m], e.data(3), ir.Constant(I64, 16 * (m * vectors + j)))
        return context.get_dummy_value()

    return types.void(gradient, column, width, table, n), codegen


@intrinsic
def add_vector(typingctx, values, target, source):
    """values[target:] += values[source:], 16 floats."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        total = builder.fadd(e.load(e.data(0), e.index(1)), e.load(e.data(0), e.index(2)))
        e.store(total, e.data(0), e.index(1))
        return context.get_dummy_value()

    return types.void(values, target, source), codegen


@intrinsic
def add_patterns(typingctx, grad, rows, patterns, count, column, width, table, n):
    """grad[rows[i] * width + column:] += table[patterns[i] * 16 n:] for every i < count."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        g, vectors = e.data(0), n.literal_value
        with cgutils.for_range(builder, e.index(3), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, e.index(5)), e.index(4))
            entry = builder.zext(builder.load(builder.gep(e.data(2), [loop.index])), I64)
            entry = builder.mul(entry, ir.Constant(I64, 16 * vectors))
            for j in range(vectors):
                at = e.plus(row, 16 * j)
                term = e.load(e.data(6), e.plus(entry, 16 * j))
                e.store(builder.fadd(e.load(g, at), term), g, at)
        return context.get_dummy_value()

    return types.void(grad, rows, patterns, count, column, width, table, n), codegen


@intrinsic
def add_steps(typingctx, grad, rows, sizes, step, count, values, column, width, n):
    """grad[rows[i] * width + column:] += sum over t of sizes[i + t * step] * values[t * width +
    column:] for every i < count."""
    if not literal(n):
        return None

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        g, wide = e.data(0), e.index(7)
        terms = []
        for t in range(STEPS):
            row = builder.add(builder.mul(wide, ir.Constant(I64, t)), e.index(6))
            terms.append([e.load(e.data(5), e.plus(row, 16 * j)) for j in range(n.literal_value)])
        with cgutils.for_range(builder, e.index(4), intp=I64) as loop:
            row = builder.zext(builder.load(builder.gep(e.data(1), [loop.index])), I64)
            row = builder.add(builder.mul(row, wide), e.index(6))
            scales = []
            for t in range(STEPS):
                place = builder.add(loop.index, builder.mul(e.index(3), ir.Constant(I64, t)))
                scales.append(e.splat(builder.load(builder.gep(e.data(2), [place]))))
            for j in range(n.literal_value):
                at = e.plus(row, 16 * j)
                total = e.load(g, at)
                for t in range(STEPS):
                    total = e.fma(scales[t], terms[t][j], total)
                e.store(total, g, at)
        return context.get_dummy_value()

    return types.void(grad, rows, sizes, step, count, values, column, width, n), codegen


@intrinsic
def nonzero(typingctx, values, offset):
    """Bits of the 16 floats at values[offset:] that are not zero."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, signature, args)
        value = e.load(e.data(0), e.index(1))
        return e.bits(builder.fcmp_unordered("!=", value, e.constant(0.0)))

    return types.uint64(values, offset), codegen
