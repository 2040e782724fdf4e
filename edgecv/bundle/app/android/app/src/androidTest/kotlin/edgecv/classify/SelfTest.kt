package edgecv.classify

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.security.MessageDigest
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Are labels, preprocessing, model and pixels on this phone those that edgecv wrote down in golden/? */
@RunWith(AndroidJUnit4::class)
class SelfTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val classifier = Classifier(instrumentation.targetContext.assets)
    private val golden = JSONObject(read("golden.json").decodeToString())
    private val images = golden.getJSONArray("images").let { all -> List(all.length()) { all.getJSONObject(it) } }

    private fun read(name: String) = instrumentation.context.assets.open("golden/$name").use { it.readBytes() }

    private fun outputs(image: JSONObject) =
        image.getJSONArray("outputs").let { all -> FloatArray(all.length()) { all.getDouble(it).toFloat() } }

    @After
    fun close() = classifier.close()

    @Test
    fun theModelsBytesAreThoseThatWereVerified() {
        val model = instrumentation.targetContext.assets.open("model.tflite").use { it.readBytes() }
        val digest = MessageDigest.getInstance("SHA-256").digest(model).joinToString("") { "%02x".format(it) }
        assertEquals(golden.getJSONObject("files").getString("model.tflite"), digest)
    }

    @Test
    fun theLabelsAreTheGoldenOnesAndNameTheAnswers() {
        assertTrue(images.isNotEmpty())
        assertEquals("${golden.getJSONArray("labels")}", "${JSONArray(classifier.labels)}")
        for (image in images) {
            val outputs = outputs(image)
            assertEquals(outputs.size, classifier.labels.size)
            assertEquals(image.getString("label"), classifier.labels[best(outputs).first()])
        }
    }

    @Test
    fun thePreprocessingIsTheGoldenOne() {
        val expected = golden.getJSONObject("preprocess")
        for (key in expected.keys()) assertEquals(key, "${expected.get(key)}", "${classifier.settings.opt(key)}")
    }

    @Test
    fun theModelGivesTheGoldenProbabilities() {
        for (image in images) {
            val expected = outputs(image)
            val given = classifier.run(read(image.getString("input")))
            val largest = expected.indices.maxOf { abs(given[it] - expected[it]) }
            assertTrue("${image.getString("image")}: $largest", largest <= golden.getDouble("tolerance"))
        }
    }

    @Test
    fun thePixelsAreTrainingsAndGiveTheGoldenAnswer() {
        for (image in images) {
            val name = image.getString("image")
            val input = decode(read(name)).fit(classifier.preprocess)
            val apart = meanDifference(input, read(image.getString("input")))
            assertTrue("$name: pixels differ by $apart", apart <= golden.getDouble("pixel_tolerance"))
            assertEquals(name, image.getString("label"), classifier.labels[best(classifier.run(input)).first()])
        }
    }
}
