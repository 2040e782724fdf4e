// Fit an image as the Android app does, on a JVM: Pixels IMAGE.png OUT.bin SIZE RESIZE FRACTION FILTER ...
import edgecv.classify.Preprocess
import edgecv.classify.fit
import edgecv.classify.imageOf
import java.io.File
import javax.imageio.ImageIO

fun main(arguments: Array<String>) {
    for (job in arguments.toList().chunked(6)) {
        val read = ImageIO.read(File(job[0]))
        val image = imageOf(read.width, read.height) { y, row -> read.getRGB(0, y, read.width, 1, row, 0, read.width) }
        val preprocess = Preprocess(job[2].toInt(), job[3] == "crop", job[4].toDouble(), job[5] == "bicubic")
        File(job[1]).writeBytes(image.fit(preprocess))
    }
}
