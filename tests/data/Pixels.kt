// Fit an image as the Android app does, on a JVM: Pixels IMAGE.png OUT.bin SIZE RESIZE FRACTION FILTER ...
import edgecv.classify.Image
import edgecv.classify.Preprocess
import edgecv.classify.fit
import java.io.File
import javax.imageio.ImageIO

fun main(arguments: Array<String>) {
    for (job in arguments.toList().chunked(6)) {
        val read = ImageIO.read(File(job[0]))
        val colors = read.getRGB(0, 0, read.width, read.height, null, 0, read.width)
        val pixels = ByteArray(3 * colors.size) { (colors[it / 3] shr (16 - 8 * (it % 3))).toByte() }
        val preprocess = Preprocess(job[2].toInt(), job[3] == "crop", job[4].toDouble(), job[5] == "bicubic")
        File(job[1]).writeBytes(Image(read.width, read.height, pixels).fit(preprocess))
    }
}
