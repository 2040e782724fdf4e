package edgecv.classify

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt

/** RGB, 8 bits a channel, row by row from the top. */
class Image(val width: Int, val height: Int, val pixels: ByteArray)

/** Make an image of rows of ARGB. They are read one at a time: all would take more of the heap than the image does. */
fun imageOf(width: Int, height: Int, readRow: (y: Int, into: IntArray) -> Unit): Image {
    val pixels = ByteArray(3 * width * height)
    val row = IntArray(width)
    var out = 0
    for (y in 0 until height) {
        readRow(y, row)
        for (color in row) for (shift in 16 downTo 0 step 8) pixels[out++] = (color shr shift).toByte()
    }
    return Image(width, height, pixels)
}

/** How training made the model's input. The model subtracts mean and divides by scale itself: feed it 0 to 255. */
class Preprocess(val size: Int, val crop: Boolean, val cropFraction: Double, val bicubic: Boolean)

private const val FRACTION_BITS = 22 // 8 of 32 bits are the pixel's, 2 are left for sums that overshoot

/** The source pixels that one result is summed from: `weights`, in units of 2^-22, from pixel `first` on. */
private class Taps(val first: Int, val weights: IntArray)

/**
 * Resize to the model's input as training does, antialiased, 8 bits after each pass. Columns after rows, as Pillow
 * does; before them where the height shrinks by more than twice what the width does.
 */
fun Image.fit(preprocess: Preprocess): ByteArray {
    val side = min(width, height) * preprocess.cropFraction
    val (across, down) = if (preprocess.crop) side to side else width.toDouble() to height.toDouble()
    val left = (width - across) / 2
    val top = (height - down) / 2
    fun Image.fitRows() = resizeRows(left.toFloat(), (left + across).toFloat(), preprocess)
    fun Image.fitColumns() = resizeRows(top.toFloat(), (top + down).toFloat(), preprocess) // of an image on its side
    val shrinksMostlyDown = height > preprocess.size && height - preprocess.size > 2 * (width - preprocess.size)
    val fitted = if (shrinksMostlyDown) transposed().fitColumns().fitRows().transposed() else fitRows().fitColumns()
    return fitted.pixels
}

private fun Image.transposed(): Image {
    val result = ByteArray(pixels.size) {
        val (x, y) = it / 3 / height to it / 3 % height
        pixels[3 * (y * width + x) + it % 3]
    }
    return Image(height, width, result)
}

/** Resize each row, and swap rows with columns: twice gives an image resized both ways. */
private fun Image.resizeRows(from: Float, to: Float, preprocess: Preprocess): Image {
    val result = ByteArray(3 * height * preprocess.size)
    var out = 0
    for (i in 0 until preprocess.size) {
        val taps = taps(width, from, to, i, preprocess)
        for (y in 0 until height) {
            for (channel in 0 until 3) {
                var at = 3 * (y * width + taps.first) + channel
                var sum = 1 shl (FRACTION_BITS - 1)
                for (weight in taps.weights) {
                    sum += weight * (pixels[at].toInt() and 0xFF)
                    at += 3
                }
                result[out++] = (sum shr FRACTION_BITS).coerceIn(0, 255).toByte()
            }
        }
    }
    return Image(height, preprocess.size, result)
}

/**
 * What result `i` reads of a row of `length` pixels, between the places `from` and `to`. Where the row shrinks, the
 * filter widens with the factor, so that no pixel is passed over.
 */
private fun taps(length: Int, from: Float, to: Float, i: Int, preprocess: Preprocess): Taps {
    val scale = (to - from).toDouble() / preprocess.size
    val stretch = max(scale, 1.0)
    val centre = from + (i + 0.5) * scale
    val reach = (if (preprocess.bicubic) 2.0 else 1.0) * stretch
    val first = max(0, (centre - reach + 0.5).toInt())
    val last = min(length, (centre + reach + 0.5).toInt())
    val weights = DoubleArray(last - first) { weight((first + it + 0.5 - centre) / stretch, preprocess.bicubic) }
    val sum = weights.sum()
    return Taps(first, IntArray(weights.size) { (weights[it] / sum * (1 shl FRACTION_BITS)).roundToInt() })
}

/** A triangle, or Keys' cubic with a = -0.5. */
private fun weight(distance: Double, bicubic: Boolean): Double {
    val x = abs(distance)
    return when {
        !bicubic -> max(0.0, 1.0 - x)
        x < 1.0 -> (1.5 * x - 2.5) * x * x + 1.0
        x < 2.0 -> ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        else -> 0.0
    }
}

/** The places of the largest outputs, best first. */
fun best(outputs: FloatArray, count: Int = 5): List<Int> =
    outputs.indices.sortedByDescending { outputs[it] }.take(count)

/** Mean difference of two inputs, in grey levels. */
fun meanDifference(a: ByteArray, b: ByteArray): Double {
    require(a.size == b.size) { "${a.size} bytes are not ${b.size}" }
    return a.indices.sumOf { abs((a[it].toInt() and 0xFF) - (b[it].toInt() and 0xFF)) }.toDouble() / a.size
}
