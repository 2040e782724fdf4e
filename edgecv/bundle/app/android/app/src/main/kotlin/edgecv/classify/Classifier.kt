package edgecv.classify

import android.content.res.AssetManager
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Matrix
import android.graphics.RectF
import android.media.ExifInterface
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import java.io.IOException
import org.json.JSONObject

/** The bundle's model, ready to run. Close it when it is no longer needed. */
class Classifier(assets: AssetManager) : AutoCloseable {
    val labels: List<String> = assets.open("labels.txt").bufferedReader().use { it.readLines() }
    val settings = JSONObject(assets.open("preprocess.json").bufferedReader().use { it.readText() })
    val preprocess = Preprocess(
        size = settings.getInt("size"),
        crop = settings.getString("resize") == "crop",
        cropFraction = settings.getDouble("crop_fraction"),
        bicubic = settings.getString("filter") == "bicubic",
    )
    private val model = CompiledModel.create(assets, "model.tflite", CompiledModel.Options(Accelerator.CPU))
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    init {
        require(settings.getJSONObject("input").getString("dtype") == "uint8") { "the model does not take uint8" }
    }

    /** Give the probability of each label. `input`: RGB pixels of 0 to 255, as `Image.fit` gives them. */
    fun run(input: ByteArray): FloatArray {
        inputs[0].writeInt8(input)
        model.run(inputs, outputs)
        return outputs[0].readFloat()
    }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
    }
}

/** Read a photograph as training did: turned as its EXIF orientation says, transparent pixels on white. */
fun decode(file: ByteArray): Image {
    val bitmap = BitmapFactory.decodeByteArray(file, 0, file.size) ?: throw IOException("not an image")
    val turn = upright(ExifInterface(file.inputStream()))
    val frame = RectF(0f, 0f, bitmap.width.toFloat(), bitmap.height.toFloat()).also { turn.mapRect(it) }
    turn.postTranslate(-frame.left, -frame.top)
    val shown = Bitmap.createBitmap(frame.width().toInt(), frame.height().toInt(), Bitmap.Config.ARGB_8888)
    Canvas(shown).apply { drawColor(Color.WHITE) }.drawBitmap(bitmap, turn, null)
    return imageOf(shown.width, shown.height) { y, row -> shown.getPixels(row, 0, shown.width, 0, y, shown.width, 1) }
}

/** Give what turns a photograph as its EXIF says. */
private fun upright(exif: ExifInterface): Matrix = Matrix().apply {
    when (exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)) {
        ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> setScale(-1f, 1f)
        ExifInterface.ORIENTATION_ROTATE_180 -> setRotate(180f)
        ExifInterface.ORIENTATION_FLIP_VERTICAL -> setScale(1f, -1f)
        ExifInterface.ORIENTATION_TRANSPOSE -> { setRotate(90f); postScale(-1f, 1f) }
        ExifInterface.ORIENTATION_ROTATE_90 -> setRotate(90f)
        ExifInterface.ORIENTATION_TRANSVERSE -> { setRotate(-90f); postScale(-1f, 1f) }
        ExifInterface.ORIENTATION_ROTATE_270 -> setRotate(-90f)
    }
}
